"""The double-entry ledger: balances under lock, transfers, and the audit that recomputes them all."""
