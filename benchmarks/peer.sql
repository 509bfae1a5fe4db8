-- The peer: a market buy as one PL/pgSQL call per transaction that writes the same rows as settlement does
-- (order, transfer, five entries, five balances, trade, position, asset, account event) under the same constraints and triggers.
-- Arithmetic in NUMERIC, locks in the same order, the key looked up first, the session checked under the lock.
CREATE OR REPLACE FUNCTION peer_buy(p_account bigint, p_session bigint, p_asset bigint, p_key text, p_shares numeric)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    a record; s_before numeric; v_gross bigint; v_fee bigint; v_now timestamptz; v_frozen boolean; v_paused boolean;
    v_order bigint; v_transfer bigint; cash record; owned record; backing record; surplus record; issued record;
    held record; v_position record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1885435251);
    SELECT * INTO a FROM assets WHERE id = p_asset FOR NO KEY UPDATE;
    SELECT frozen INTO v_frozen FROM accounts WHERE id = p_account FOR NO KEY UPDATE;
    SELECT id INTO v_order FROM orders WHERE account_id = p_account AND client_order_id = p_key;
    IF FOUND THEN RETURN v_order; END IF;
    PERFORM 1 FROM sessions WHERE id = p_session AND revoked_at IS NULL AND expires_at > clock_timestamp();
    IF NOT FOUND THEN RAISE EXCEPTION 'session ended'; END IF;
    SELECT trading_paused INTO v_paused FROM platform;
    IF v_frozen OR v_paused OR a.status <> 'OPEN' THEN RAISE EXCEPTION 'not open'; END IF;
    v_now := clock_timestamp();
    s_before := a.supply;
    v_gross := ceil(((2000000000000000::numeric * a.base_price + a.slope * (s_before + p_shares)) * (s_before + p_shares)
                   - (2000000000000000::numeric * a.base_price + a.slope * s_before) * s_before)
                   / 2000000000000000000000000000000);
    v_fee := ceil(v_gross * a.fee_rate / 1000000000::numeric);
    SELECT * INTO cash FROM ledger_accounts
     WHERE account_id = p_account AND asset_id IS NULL AND currency = a.quote_currency AND kind = 'AVAILABLE';
    IF cash.balance < v_gross + v_fee THEN RAISE EXCEPTION 'insufficient funds'; END IF;
    SELECT * INTO owned FROM ledger_accounts
     WHERE account_id = p_account AND asset_id = p_asset AND currency = a.symbol AND kind = 'AVAILABLE';
    IF NOT FOUND THEN
        INSERT INTO ledger_accounts (kind, currency, account_id, asset_id)
        VALUES ('AVAILABLE', a.symbol, p_account, p_asset) RETURNING * INTO owned;
    END IF;
    SELECT * INTO backing FROM ledger_accounts WHERE account_id IS NULL AND asset_id = p_asset AND kind = 'BACKING';
    SELECT * INTO surplus FROM ledger_accounts WHERE account_id IS NULL AND asset_id = p_asset AND kind = 'SURPLUS';
    SELECT * INTO issued FROM ledger_accounts WHERE account_id IS NULL AND asset_id = p_asset AND kind = 'ISSUED';
    v_order := nextval('orders_id_seq');
    v_transfer := nextval('transfers_id_seq');
    INSERT INTO orders (id, account_id, asset_id, client_order_id, input_hash, side, type, time_in_force, status,
                        shares, filled_shares, gross, fee, created_at, updated_at)
    VALUES (v_order, p_account, p_asset, p_key, sha256(p_key::bytea), 'BUY', 'MARKET', 'FOK', 'FILLED',
            p_shares, p_shares, v_gross, v_fee, v_now, v_now);
    INSERT INTO transfers (id, reason, ref, entry_count, at)
    VALUES (v_transfer, 'TRADE', 'Trade:' || p_asset || ':' || a.trade_seq + 1, 5, v_now);
    INSERT INTO entries (transfer_id, ledger_account_id, account_id, version, amount, balance_after) VALUES
        (v_transfer, cash.id, p_account, cash.version + 1, -v_gross - v_fee, cash.balance - v_gross - v_fee),
        (v_transfer, backing.id, NULL, backing.version + 1, v_gross, backing.balance + v_gross),
        (v_transfer, surplus.id, NULL, surplus.version + 1, v_fee, surplus.balance + v_fee),
        (v_transfer, owned.id, p_account, owned.version + 1, p_shares, owned.balance + p_shares),
        (v_transfer, issued.id, NULL, issued.version + 1, -p_shares, issued.balance - p_shares);
    UPDATE ledger_accounts SET version = version + 1,
           balance = balance + CASE id WHEN cash.id THEN -v_gross - v_fee WHEN backing.id THEN v_gross
                                       WHEN surplus.id THEN v_fee WHEN owned.id THEN p_shares ELSE -p_shares END
     WHERE id IN (cash.id, backing.id, surplus.id, owned.id, issued.id);
    INSERT INTO trades (asset_id, seq, account_id, order_id, side, shares, gross, fee, supply_after, market_after,
                        transfer_id, at)
    VALUES (p_asset, a.trade_seq + 1, p_account, v_order, 'BUY', p_shares, v_gross, v_fee, s_before + p_shares,
            round(a.base_price + a.slope * (s_before + p_shares) / 1000000000000000), v_transfer, v_now);
    INSERT INTO positions (account_id, asset_id, shares, cost_basis) VALUES (p_account, p_asset, p_shares, v_gross + v_fee)
    ON CONFLICT (account_id, asset_id) DO UPDATE
       SET shares = positions.shares + p_shares, cost_basis = positions.cost_basis + v_gross + v_fee
    RETURNING shares, cost_basis, realized_pnl INTO v_position;
    SELECT * INTO held FROM ledger_accounts
     WHERE account_id = p_account AND asset_id IS NULL AND currency = a.quote_currency AND kind = 'HELD';
    INSERT INTO account_events (account_id, seq, at, order_id, transfer_id, currency, available, held, asset_id, shares,
                                cost_basis, realized_pnl)
    VALUES (p_account, coalesce((SELECT max(seq) FROM account_events WHERE account_id = p_account), 0) + 1, v_now, v_order,
            v_transfer, a.quote_currency, cash.balance - v_gross - v_fee, held.balance, p_asset, v_position.shares,
            v_position.cost_basis, v_position.realized_pnl);
    UPDATE assets SET supply = supply + p_shares, backing = assets.backing + v_gross, surplus = assets.surplus + v_fee,
           trade_seq = trade_seq + 1, last_trade_at = v_now WHERE id = p_asset;
    RETURN v_order;
END $$;
