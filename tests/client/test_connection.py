"""The socket against a server that cuts, repeats, falls silent and refuses: nothing is lost or repeated unseen."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from megatron_client import (
    BadMessage,
    Client,
    Gap,
    MegatronError,
    NotLoggedIn,
    Operation,
    RequestFailed,
    SessionEnded,
    SocketClosed,
    Tick,
    TokenRefused,
    TooManyRequests,
    connection,
)
from tests.client.standin import SECONDS_MAX, Json, Standin, envelope, standin, tick, tick_event, trade

T = TypeVar("T")
ASK = Operation("Ask", "query Ask { ask }")


@pytest.fixture
async def server() -> AsyncIterator[Standin]:
    async with standin() as made:
        yield made


class Reading(list[T]):
    """What a stream has given so far, read by a task of its own. `failure` is what ended it."""

    def __init__(self, stream: AsyncGenerator[T, None]) -> None:
        super().__init__()
        self.news = asyncio.Event()
        self.stream = stream
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for item in self.stream:
            self.append(item)
            self.news.set()

    async def expect(self, count: int) -> list[T]:
        """The first `count` items, once they are there."""
        async with asyncio.timeout(SECONDS_MAX):
            while len(self) < count and not self.task.done():
                self.news.clear()
                waiting = asyncio.create_task(self.news.wait())
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        assert len(self) >= count, self.task
        return list(self)

    async def failure(self) -> BaseException | None:
        await asyncio.wait({self.task}, timeout=SECONDS_MAX)
        return self.task.exception()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.stream.aclose()


def seen(reading: list[Tick]) -> list[tuple[str, int]]:
    return [(one.asset_id, one.seq) for one in reading]


async def test_a_cut_stream_goes_on_after_its_last_event_exactly_once(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A", "B"]))
        first = await server.peer()
        wire_id, variables = await first.subscribed()
        assert variables == {
            "assetIds": ["id-A", "id-B"], "mode": "ALL", "throttle": "NONE", "snapshot": True, "heartbeat": 5,
        }  # fmt: skip
        await first.ticks(wire_id, "SNAPSHOT", ("id-A", 7), ("id-B", 3), cursor="p10")
        await first.ticks(wire_id, "UPDATE", ("id-A", 8), cursor="p11")
        await reading.expect(3)
        first.cut()
        second = await server.peer()
        again, variables = await second.subscribed()
        assert variables["after"] == "p11"
        # A server that repeats what it sent before the cut is forgiven: each seq is given out once.
        await second.ticks(again, "UPDATE", ("id-A", 8), ("id-A", 9), ("id-B", 4), cursor="p13")
        assert seen(await reading.expect(5)) == [("id-A", 7), ("id-B", 3), ("id-A", 8), ("id-A", 9), ("id-B", 4)]
        assert [one.symbol for one in reading] == ["A", "B", "A", "A", "B"]
        await reading.stop()


async def test_heartbeats_move_the_cursor(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.tick_events(["A"]))
        first = await server.peer()
        wire_id, _ = await first.subscribed()
        await first.ticks(wire_id, "SNAPSHOT", ("id-A", 1), cursor="p1")
        await first.ticks(wire_id, "HEARTBEAT", cursor="p99")
        events = await reading.expect(2)
        assert [(event.kind, event.cursor, len(event.items)) for event in events] == [
            ("SNAPSHOT", "p1", 1),
            ("HEARTBEAT", "p99", 0),
        ]
        first.cut()
        _, variables = await (await server.peer()).subscribed()
        assert variables["after"] == "p99"
        await reading.stop()


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4408])
async def test_closes_that_pass_are_survived(server: Standin, code: int) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A"]))
        first = await server.peer()
        wire_id, _ = await first.subscribed()
        await first.ticks(wire_id, "SNAPSHOT", ("id-A", 1), cursor="p1")
        await reading.expect(1)
        await first.close(code, "come back")
        second = await server.peer()
        again, variables = await second.subscribed()
        assert variables["after"] == "p1"
        await second.ticks(again, "UPDATE", ("id-A", 2), cursor="p2")
        assert seen(await reading.expect(2)) == [("id-A", 1), ("id-A", 2)]
        await reading.stop()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4400, BadMessage),
        (4401, SessionEnded),
        (4403, TokenRefused),
        (4406, BadMessage),
        (4409, BadMessage),
        (4429, TooManyRequests),
        (1009, BadMessage),
    ],
)
async def test_closes_that_last_are_raised_after_what_had_come(
    server: Standin, code: int, kind: type[SocketClosed]
) -> None:
    async with server.client() as client:
        readings = [Reading(client.ticks(["A"])), Reading(client.ticks(["B"]))]
        peer = await server.peer()
        for _ in readings:
            wire_id, variables = await peer.subscribed()
            await peer.ticks(wire_id, "SNAPSHOT", (variables["assetIds"][0], 5), cursor="p5")
        await peer.close(code, "for a reason")
        for reading in readings:
            error = await reading.failure()
            assert isinstance(error, kind)
            assert (error.code, error.reason, len(reading)) == (code, "for a reason", 1)
        assert client.connection.is_open is False
        # A new stream tries anew.
        anew = Reading(client.ticks(["A"]))
        await (await server.peer()).subscribed()
        await anew.stop()


async def test_many_streams_share_one_socket_and_end_one_by_one(server: Standin) -> None:
    async with server.client() as client:
        ticks = Reading(client.ticks())
        peer = await server.peer()
        ids = [(await peer.subscribed())[0]]
        trades = Reading(client.trades(["B"]))
        ids.append((await peer.subscribed())[0])
        await peer.ticks(ids[0], "SNAPSHOT", ("id-A", 1), cursor="p1")
        event = {**envelope("UPDATE", cursor="t1"), "trades": [trade("id-B", 4), trade("id-B", 5)]}
        await peer.event(ids[1], "trades", event)
        assert [(one.symbol, one.seq) for one in await trades.expect(2)] == [("B", 4), ("B", 5)]
        await ticks.expect(1)
        await ticks.stop()
        assert (await peer.message("complete"))["id"] == ids[0]
        await trades.stop()
        assert (await peer.message("complete"))["id"] == ids[1]
        assert server.peers.empty()


async def test_a_refused_subscription_says_why(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.account_events())
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        await peer.error(wire_id, "UNAUTHENTICATED", requestId="r-1")
        error = await reading.failure()
        assert isinstance(error, NotLoggedIn)
        assert (error.code, error.message, error.request_id) == ("UNAUTHENTICATED", "it is UNAUTHENTICATED", "r-1")


async def test_a_subscription_that_is_told_to_wait_waits(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A"]))
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        await peer.error(wire_id, "RATE_LIMITED", retryAfterMs=7_000)
        again, _ = await peer.subscribed()
        assert again != wire_id
        assert server.pauses == [7.0]
        await reading.stop()


async def test_an_event_that_failed_is_asked_for_again(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A"]))
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 1), cursor="p1")
        failed = [{"message": "sorry", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]
        await peer.send({"id": wire_id, "type": "next", "payload": {"data": None, "errors": failed}})
        # Events that were on their way already must not move the cursor past the one that failed.
        await peer.ticks(wire_id, "UPDATE", ("id-A", 3), cursor="p3")
        assert (await peer.message("complete"))["id"] == wire_id
        again, variables = await peer.subscribed()
        assert variables["after"] == "p1"
        await peer.ticks(again, "UPDATE", ("id-A", 2), ("id-A", 3), cursor="p3")
        assert seen(await reading.expect(3)) == [("id-A", 1), ("id-A", 2), ("id-A", 3)]
        await reading.stop()


async def test_silence_makes_the_connection_anew(server: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENT_HEARTBEATS", 0.02)
    async with server.client() as client:
        reading = Reading(client.ticks(["A"]))
        first = await server.peer()
        await first.subscribed()
        second = await server.peer()
        await second.subscribed()
        assert second.socket is not first.socket
        await reading.stop()


async def test_a_busy_reader_loses_nothing_and_holds_nobody_up(
    server: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "EVENTS_WAITING_MAX", 2)
    async with server.client(over_socket=True) as client:
        client._symbols["id-A"] = "A"
        stream = client.ticks()
        first_read = asyncio.create_task(anext(stream))
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 1), cursor="p1")
        assert (await first_read).seq == 1
        for seq in (2, 3, 4):
            await peer.ticks(wire_id, "UPDATE", ("id-A", seq), cursor=f"p{seq}")
        assert (await peer.message("complete"))["id"] == wire_id
        asked = asyncio.create_task(client.execute(ASK))
        ask = await peer.message("subscribe")
        await peer.send({"id": ask["id"], "type": "next", "payload": {"data": {"ask": 7}}})
        assert await asked == {"ask": 7}
        assert [(await anext(stream)).seq for _ in range(2)] == [2, 3]
        rest = asyncio.create_task(anext(stream))
        again, variables = await peer.subscribed()
        assert variables["after"] == "p3"
        await peer.ticks(again, "UPDATE", ("id-A", 4), cursor="p4")
        assert (await rest).seq == 4
        await stream.aclose()


async def test_requests_go_over_the_socket_and_again_after_a_cut(server: Standin) -> None:
    async with server.client(over_socket=True, token="secret") as client:
        asked = asyncio.create_task(client.execute(ASK, {"one": 1}))
        first = await server.peer()
        assert first.init == {"authorization": "Bearer secret"}
        message = await first.message("subscribe")
        assert message["payload"] == {"query": "query Ask { ask }", "operationName": "Ask", "variables": {"one": 1}}
        first.cut()
        second = await server.peer()
        again = await second.message("subscribe")
        assert again["payload"] == message["payload"]
        await second.error(again["id"], "BAD_USER_INPUT")
        with pytest.raises(RequestFailed, match="BAD_USER_INPUT: it is BAD_USER_INPUT"):
            await asked
        assert (client.requests.sent, client.requests.retries, server.posted) == (2, 1, [])


async def test_a_ping_is_answered(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A"]))
        peer = await server.peer()
        await peer.subscribed()
        await peer.send({"type": "ping"})
        assert await peer.message("pong") == {"type": "pong"}
        await reading.stop()


async def test_another_log_in_opens_another_socket_and_loses_nothing(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A"]))
        first = await server.peer()
        assert first.init == {}
        wire_id, _ = await first.subscribed()
        await first.ticks(wire_id, "SNAPSHOT", ("id-A", 1), cursor="p1")
        await reading.expect(1)
        session = {"session": {"token": "mgs_1", "expiresAt": "2026-01-01T00:00:00Z"}, "userErrors": []}
        server.answer = lambda _: {"logIn": session}
        await client.log_in("a@example.com", "pass")
        second = await server.peer()
        assert second.init == {"authorization": "Bearer mgs_1"}
        assert (await second.subscribed())[1]["after"] == "p1"
        await reading.stop()


async def test_a_hole_is_told(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A", "B"]))
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 5), ("id-B", 5), cursor="p1")
        await peer.ticks(wire_id, "GAP", cursor="p9")
        await peer.ticks(wire_id, "SNAPSHOT", ("id-B", 5), ("id-A", 9), cursor="p9")
        error = await reading.failure()
        assert isinstance(error, Gap)
        assert (error.symbol, error.after_seq, error.before_seq) == ("A", 5, 9)
        assert str(error) == (
            "3 events of A are missing, after seq 5 and before 9: the stream no longer reaches back so far"
        )
        assert seen(reading) == [("id-A", 5), ("id-B", 5)]


async def test_a_hole_is_filled_from_history_where_asked_for(server: Standin) -> None:
    def answer(body: Json) -> Json:
        assert body["operationName"] == "TickHistory"
        after = body["variables"]["afterSeq"]
        return {"ticks": [tick("id-A", seq) for seq in range(after + 1, after + 3)]}

    async with server.client() as client:
        await client.fetch_markets()
        server.answer = answer
        reading = Reading(client.ticks(["A"], backfill=True))
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 5), cursor="p1")
        await peer.ticks(wire_id, "GAP", cursor="p9")
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 10), cursor="p9")
        assert [one.seq for one in await reading.expect(6)] == [5, 6, 7, 8, 9, 10]
        sizes = [(body["variables"]["afterSeq"], body["variables"]["first"]) for body in server.posted[1:]]
        assert sizes == [(5, 4), (7, 2)]
        await reading.stop()


async def test_a_hole_that_history_no_longer_has_is_told_too(server: Standin) -> None:
    async with server.client() as client:
        await client.fetch_markets()
        server.answer = lambda _: {"ticks": [tick("id-A", 8), tick("id-A", 9)]}
        reading = Reading(client.ticks(["A"], backfill=True))
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 5), cursor="p1")
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 10), cursor="p9")
        error = await reading.failure()
        assert isinstance(error, Gap)
        assert (error.after_seq, error.before_seq) == (5, 10)


async def test_latest_leaves_out_what_it_may(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A"], mode="LATEST", throttle="MS_250"))
        peer = await server.peer()
        wire_id, variables = await peer.subscribed()
        assert (variables["mode"], variables["throttle"]) == ("LATEST", "MS_250")
        await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 5), cursor="p1")
        await peer.ticks(wire_id, "UPDATE", ("id-A", 50), cursor="p2")
        assert [one.seq for one in await reading.expect(2)] == [5, 50]
        await reading.stop()


async def test_a_hole_in_the_tape_is_told(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.trades())
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        for seq in (1, 2, 2, 4):
            event = {**envelope("UPDATE", cursor=f"t{seq}"), "trades": [trade("id-A", seq)]}
            await peer.event(wire_id, "trades", event)
        error = await reading.failure()
        assert isinstance(error, Gap)
        assert ([one.seq for one in reading], error.after_seq, error.before_seq) == ([1, 2], 2, 4)


async def test_account_events_come_once(server: Standin) -> None:
    def event(kind: str, seq: int, cursor: str) -> Json:
        lists: Json = {"orders": [], "fills": [], "positions": []}
        money = {"currency": "USDC", "available": f"{seq}.5", "held": "0", "total": f"{seq}.5"}
        return {**envelope(kind, cursor=cursor), "seq": seq, "balances": [money], **lists}

    async with server.client(token="secret") as client:
        reading = Reading(client.account_events())
        peer = await server.peer()
        wire_id, _ = await peer.subscribed()
        for kind, seq in (("SNAPSHOT", 3), ("UPDATE", 3), ("UPDATE", 4), ("GAP", 9), ("SNAPSHOT", 9), ("UPDATE", 10)):
            await peer.event(wire_id, "accountEvents", event(kind, seq, f"e{seq}"))
        got = [(one.kind, one.seq, str(one.balances[0].available)) for one in await reading.expect(5)]
        assert got == [
            ("SNAPSHOT", 3, "3.5"), ("UPDATE", 4, "4.5"), ("GAP", 9, "9.5"), ("SNAPSHOT", 9, "9.5"),
            ("UPDATE", 10, "10.5"),
        ]  # fmt: skip
        await reading.stop()


async def test_symbols_of_new_assets_are_looked_up(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks())
        peer = await server.peer()
        wire_id, variables = await peer.subscribed()
        assert variables["assetIds"] is None
        await peer.ticks(wire_id, "UPDATE", ("id-A", 1), ("id-X", 1), cursor="p1")
        await peer.ticks(wire_id, "UPDATE", ("id-X", 2), cursor="p2")
        assert [one.symbol for one in await reading.expect(3)] == ["A", "", ""]
        assert len(server.posted) == 1
        await reading.stop()


async def test_a_client_that_is_closed_ends_its_streams(server: Standin) -> None:
    async with server.client() as client:
        reading = Reading(client.ticks(["A"]))
        await (await server.peer()).subscribed()
    error = await reading.failure()
    assert isinstance(error, MegatronError)
    assert str(error) == "the client is closed"


async def test_a_server_that_is_away_is_waited_for() -> None:
    async with standin() as gone:
        pass
    async with gone.client() as client:
        reading = Reading(client.tick_events())
        async with asyncio.timeout(SECONDS_MAX):
            while len(gone.pauses) < 6:  # noqa: ASYNC110 - pauses are counted by a list, not an event
                await asyncio.sleep(0)
        assert gone.pauses[:6] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
        assert client.connection.attempts >= 6
        assert "ConnectionRefusedError" in client.connection.trouble
        await reading.stop()


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (404, RequestFailed, "HTTP_404: {url} answered 404 instead of opening a socket"),
        (403, TokenRefused, "the server closed the socket with 4403: {url} answered 403 instead of opening a socket"),
    ],
)
async def test_an_address_that_opens_no_socket_is_told(status: int, kind: type[Exception], message: str) -> None:
    async with refusing([status]) as url, Client(url) as client:
        error = await Reading(client.tick_events()).failure()
        assert type(error) is kind
        assert str(error) == message.format(url=f"{url.replace('http', 'ws')}/graphql")


async def test_an_upgrade_that_is_refused_for_now_is_tried_again() -> None:
    async with refusing([503, 429, 404]) as url:
        http = httpx.AsyncClient()
        async with http, Client(url, http=http, pause=lambda _: asyncio.sleep(0)) as client:
            error = await Reading(client.tick_events()).failure()
            assert isinstance(error, RequestFailed)
            assert error.code == "HTTP_404"


async def test_a_server_of_another_protocol_is_told() -> None:
    async def silent(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url) as client:
            error = await Reading(client.tick_events()).failure()
            assert isinstance(error, BadMessage)
            assert error.code == 4406


def refusing(statuses: list[int]) -> "serving":
    return serving(statuses)


class serving:  # noqa: N801 - used like a function
    """A server that refuses upgrades with these statuses in turn."""

    def __init__(self, statuses: list[int]) -> None:
        self.left = list(statuses)

    async def __aenter__(self) -> str:
        def refuse(socket: ServerConnection, _: Request) -> Response:
            return socket.respond(self.left.pop(0), "no")

        async def never(_: ServerConnection) -> None:
            raise AssertionError("no socket is opened here")

        self.server = await serve(never, "127.0.0.1", 0, process_request=refuse)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()


def test_tick_events_of_the_standin_are_as_the_client_asks_for_them() -> None:
    assert set(tick_event("UPDATE", ("A", 1), cursor="p1")) == {"kind", "ticks", "cursor", "serverTime", "missed"}
