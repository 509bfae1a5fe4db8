"""GraphQL over server-sent events: one operation, one stream, as graphql-sse's distinct connections mode has it.

A stream is a subscription's `Sink`: what it is given waits in a bounded queue until the server has taken it. Single
results are put into the same form by `single`. Requests, statuses and limits are `api.http`'s.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import orjson
from starlette.types import Message, Receive, Send

from api.connections import Connections, account_of
from api.error_format import UNAUTHENTICATED, ErrorFormatter
from app.accounts.principals import Principal
from app.realtime.events import Reader

KEEP_ALIVE_SECONDS: Final = 15.0
"""After so much silence a comment is sent, for what stands between to leave the connection alone."""
HIGH_WATER_BYTES: Final = 64 * 1024
BACKLOG_BYTES_MAX: Final = 2 * 1024 * 1024
"""Unsent bytes with which a stream is given up rather than sent more. One event may be larger."""
LAST_SECONDS: Final = 3.0
"""How long a client may take to read what is unsent when its stream has ended."""
STOP_SECONDS: Final = 1.0
"""The same when the process stops."""

_NEXT: Final = b"event: next\ndata: "
_COMPLETE: Final = b"event: complete\ndata: \n\n"
_KEEP_ALIVE: Final = b":\n\n"
_RESTARTING: Final = b": the service restarts, reconnect\n\n"


def single(result: bytes) -> bytes:
    """The whole stream of an operation with one result."""
    return b"%b%b\n\n%b" % (_NEXT, result, _COMPLETE)


class EventStream:
    """The stream of one subscription. It counts as a connection and as a subscription until `run` has ended.

    `abort` cuts the connection off whatever is unsent; None where the server offers no such thing.
    """

    def __init__(
        self,
        *,
        connections: Connections,
        principal: Principal,
        client_ip: str,
        request_id: str,
        errors: ErrorFormatter,
        abort: Callable[[], None] | None,
    ) -> None:
        """Raises `RateLimited` when there may be no more connections or subscriptions."""
        self._connections = connections
        self._principal = principal
        self._client_ip = client_ip
        self._request_id = request_id
        self._errors = errors
        self._abort = abort
        self._reader: Reader | None = None
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._is_over = False
        self._is_taken = False
        self._deadline: asyncio.TimerHandle | None = None
        self._take_place()

    def _take_place(self) -> None:
        connections, address = self._connections, self._client_ip
        connections.take_address(address)
        try:
            connections.take_account(self._principal)
            try:
                connections.take_subscription(address, account_of(self._principal))
            except BaseException:
                connections.release_account(self._principal)
                raise
        except BaseException:
            connections.release_address(address)
            raise
        self._is_taken = True
        connections.watch(self._principal, self)
        connections.add_stream(self)

    def opened(self, reader: Reader) -> None:
        """The subscription is open; its events come from `reader`."""
        self._reader = reader
        if self._is_over:
            reader.close()
        elif self.congested:
            reader.congested()

    def close(self) -> None:
        """Free all that the stream holds; may be called again."""
        self._is_over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._reader is not None:
            self._reader.close()
        if self._is_taken:
            self._is_taken = False
            self._connections.remove_stream(self)
            self._connections.unwatch(self._principal, self)
            self._connections.release_subscription(self._client_ip, account_of(self._principal))
            self._connections.release_account(self._principal)
            self._connections.release_address(self._client_ip)

    # ------------------------------------------------------------------------------------------------ the sink

    def send(self, payload: bytes) -> None:
        """Send a result."""
        if self._is_over:
            return
        if self._queued_bytes > BACKLOG_BYTES_MAX:
            self.too_slow()
            return
        was_congested = self.congested
        self._put(b"%b%b\n\n" % (_NEXT, payload))
        if self.congested and not was_congested and self._reader is not None:
            self._reader.congested()

    @property
    def congested(self) -> bool:
        """Whether more is unsent than should be."""
        return self._queued_bytes > HIGH_WATER_BYTES

    def complete(self) -> None:
        """Tell the reader that there will be no more."""
        self._finish(_COMPLETE)

    def too_slow(self) -> None:
        """Cut the reader off: it does not keep up, so nothing that could be said would reach it."""
        self._queue.clear()
        self._finish(b"")
        if self._abort is not None:
            self._abort()

    def session_ended(self) -> None:
        """Tell the reader so, and end."""
        self.fail(UNAUTHENTICATED, "The session has ended: log in again.")

    def fail(self, code: str, message: str) -> None:
        """End with an error."""
        error = self._errors.error(code, message, self._request_id)
        self._finish(single(orjson.dumps({"errors": [error]})))

    def stop(self) -> None:
        """The process stops: end without a `complete`, so that the reader comes back; wait for no slow one."""
        self._finish(_RESTARTING, STOP_SECONDS)
        if self.congested and self._abort is not None:
            self._abort()

    def _finish(self, last: bytes, seconds: float | None = None) -> None:
        """Say the last; a client that does not read it in time is cut off, or it would hold its place for good."""
        if not self._is_over:
            self._put(last)
            self._is_over = True
            if self._abort is not None:
                allowed = LAST_SECONDS if seconds is None else seconds
                self._deadline = asyncio.get_running_loop().call_later(allowed, self._abort)
            if self._reader is not None:
                self._reader.close()

    def _put(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._wake.set()

    # ------------------------------------------------------------------------------------------------ the response

    async def run(self, start: Message, receive: Receive, send: Send) -> None:
        """Answer with the stream until it ends or its client goes away; then everything is freed."""
        leaving = asyncio.create_task(self._until_gone(receive))
        try:
            await send(start)
            while True:
                if self._queue:
                    await self._send_queued(send)
                elif self._is_over:
                    break
                elif not await self._woken():
                    self._put(_KEEP_ALIVE)
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            self.close()

    async def _send_queued(self, send: Send) -> None:
        queued, self._queue = self._queue, []
        # What is being sent counts as unsent until the server has taken it.
        await send({"type": "http.response.body", "body": b"".join(queued), "more_body": True})
        was_congested = self.congested
        self._queued_bytes = sum(map(len, self._queue))
        if was_congested and not self.congested and self._reader is not None and not self._is_over:
            self._reader.drained()

    async def _woken(self) -> bool:
        self._wake.clear()
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._queue.clear()
        self._finish(b"")
