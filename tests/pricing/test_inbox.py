"""The inbox: each asset's next causes, gapless, by time, and what is missing of them."""

import pytest

from app.exchange.orders import Trade
from app.pricing import inbox as limits
from app.pricing.inbox import Inbox
from app.pricing.oracle_events import OracleEvent
from tests.pricing.causes import ONE, event, trade

A, B = 1, 2


def trades(*seqs: int, asset_id: int = A, step: float = 1.0) -> list[Trade]:
    """Trades, each `step` seconds after the one before it by its seq."""
    return [trade(seq, seq * step, asset_id=asset_id) for seq in seqs]


def events(*seqs: int, asset_id: int = A, step: float = 1.0) -> list[OracleEvent]:
    return [event(seq, seq * step, value=ONE, asset_id=asset_id) for seq in seqs]


def following(*asset_ids: int, trade_seq: int = 0, oracle_seq: int = 0) -> Inbox:
    inbox = Inbox()
    for asset_id in asset_ids:
        inbox.follow(asset_id, trade_seq=trade_seq, oracle_seq=oracle_seq)
    return inbox


def taken(inbox: Inbox) -> dict[int, tuple[list[int], list[int]]]:
    """The seqs of the next batches."""
    return {
        asset_id: ([trade.seq for trade in batch.trades], [event.seq for event in batch.events])
        for asset_id, batch in inbox.take().items()
    }


def test_what_comes_in_its_order_is_taken_as_it_is_and_wakes() -> None:
    inbox = following(A, B)
    assert (bool(inbox), inbox.wake.is_set()) == (False, False)
    inbox.offer_trades([*trades(1, 2), *trades(1, asset_id=B)])
    inbox.offer_events(events(1, asset_id=B))

    assert (bool(inbox), inbox.wake.is_set()) == (True, True)
    assert (inbox.lacking_trades(), inbox.lacking_events()) == ({}, {})
    assert taken(inbox) == {A: ([1, 2], []), B: ([1], [1])}
    assert (bool(inbox), taken(inbox)) == (False, {})


def test_what_comes_again_or_for_others_is_passed_over() -> None:
    inbox = following(A, trade_seq=2, oracle_seq=1)
    inbox.offer_trades([*trades(1, 2, 3, 3), *trades(1, asset_id=B)])
    inbox.offer_events([*events(1), *events(1, asset_id=B)])
    assert taken(inbox) == {A: ([3], [])}
    inbox.offer_trades(trades(3))
    assert bool(inbox) is False


def test_behind_a_gap_nothing_is_taken_until_it_is_filled() -> None:
    inbox = following(A, trade_seq=4)
    inbox.offer_trades(trades(7))
    assert (bool(inbox), taken(inbox)) == (True, {})
    assert inbox.lacking_trades() == {A: 4}
    inbox.fill_trades(asked=[A], found={A: trades(5, 6, 7)})
    assert (inbox.lacking_trades(), taken(inbox)) == ({}, {A: ([5, 6, 7], [])})


def test_heads_tell_of_what_no_stream_told() -> None:
    inbox = following(A, B, trade_seq=4)
    inbox.offer_heads({A: (6, 2), B: (4, 0), 3: (9, 9)})
    assert (inbox.lacking_trades(), inbox.lacking_events()) == ({A: 4}, {A: 0})
    inbox.fill_trades(asked=[A], found={A: trades(5, 6)})
    inbox.fill_events(asked=[A], found={A: events(1, 2)})
    assert taken(inbox) == {A: ([5, 6], [1, 2])}


def test_a_head_that_is_not_there_is_given_up_unless_it_has_risen_meanwhile() -> None:
    inbox = following(A)
    inbox.offer_heads({A: (1, 1)})
    assert (inbox.lacking_trades(), inbox.lacking_events()) == ({A: 0}, {A: 0})
    inbox.offer_trades(trades(3))
    inbox.fill_trades(asked=[A], found={})
    inbox.fill_events(asked=[A], found={})
    assert (inbox.lacking_trades(), inbox.lacking_events()) == ({A: 0}, {})
    inbox.fill_trades(asked=[A], found={})
    assert (bool(inbox), inbox.lacking_trades()) == (False, {})


def test_while_trades_are_missing_later_events_wait() -> None:
    # Trades at 1 and 2 s of three, events at 0.5, 1.5 and 2.5 s.
    inbox = following(A)
    inbox.offer_heads({A: (3, 0)})
    inbox.fill_trades(asked=[A], found={A: trades(1, 2)})
    inbox.offer_events([event(seq, seq - 0.5, value=ONE, asset_id=A) for seq in (1, 2, 3)])
    assert taken(inbox) == {A: ([1, 2], [1, 2])}
    assert (taken(inbox), bool(inbox), inbox.lacking_trades()) == ({}, True, {A: 2})
    inbox.fill_trades(asked=[A], found={A: trades(3)})
    assert taken(inbox) == {A: ([3], [3])}


def test_while_events_are_missing_later_trades_wait() -> None:
    inbox = following(A)
    inbox.offer_events(events(1, 3))
    inbox.offer_trades(trades(1, 2))
    assert taken(inbox) == {A: ([1], [1])}
    inbox.fill_events(asked=inbox.lacking_events(), found={A: events(2, 3)})
    assert taken(inbox) == {A: ([2], [2, 3])}


def test_a_step_takes_so_many_and_the_others_are_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAKEN_MAX", 3)
    inbox = following(A, B)
    inbox.offer_trades([*trades(1, 2, 3, 4), *trades(1, asset_id=B)])
    inbox.offer_events(events(1, 2))
    assert taken(inbox) == {A: ([1, 2], [1])}
    assert taken(inbox) == {B: ([1], []), A: ([3], [2])}
    assert taken(inbox) == {A: ([4], [])}
    assert bool(inbox) is False


def test_a_queue_is_bounded_and_the_rest_is_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUEUED_MAX", 2)
    inbox = following(A)
    inbox.offer_trades(trades(1, 2, 3, 4))
    inbox.offer_events(events(1, 2, 3))
    assert (inbox.lacking_trades(), inbox.lacking_events()) == ({}, {})
    # The event of the second trade's moment waits: a trade of that moment may be among those that are missing.
    assert taken(inbox) == {A: ([1, 2], [1])}
    assert (inbox.lacking_trades(), inbox.lacking_events()) == ({A: 2}, {A: 2})


def test_to_follow_again_forgets_what_was_queued_and_knows_what_there_is() -> None:
    inbox = following(A)
    inbox.offer_trades(trades(1, 2))
    inbox.take()
    inbox.offer_trades(trades(3))
    inbox.follow(A, trade_seq=1, oracle_seq=0)
    assert (taken(inbox), inbox.lacking_trades()) == ({}, {A: 1})
    inbox.forget(A)
    inbox.offer_trades(trades(2))
    assert (bool(inbox), inbox.lacking_trades(), taken(inbox)) == (False, {}, {})
