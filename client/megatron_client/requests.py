"""Requests: sent over HTTP or the socket, and sent again for as long as that can help. Knows nothing of trading.

A request may be executed more than once by what happens here. That is safe: queries change nothing, and each mutation
of this package carries a key or can be told from its outcome.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import Final, Protocol

import httpx
import orjson

from megatron_client.errors import MegatronError, NotLoggedIn, RequestFailed, Unreachable
from megatron_client.wire import Json

PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 5.0
RATE_PAUSE_SECONDS_MAX: Final = 120.0
FAULTS_MAX: Final = 6
"""How often an answer that says "my fault" is asked for again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operation:
    """A document of one operation, and the operation's name."""

    name: str
    document: str

    def body(self, variables: Mapping[str, object]) -> Json:
        """What both transports send."""
        return {"query": self.document, "operationName": self.name, "variables": variables}


class Unanswered(Exception):  # noqa: N818 - never leaves this package
    """There is no answer to be had now. `reached` is false where the request surely was not executed."""

    def __init__(self, why: str, *, reached: bool, retry_seconds: float = 0.0, fault: "Fault | None" = None) -> None:
        super().__init__(why)
        self.reached = reached
        self.retry_seconds = retry_seconds
        self.fault = fault


class Carrier(Protocol):
    """A way to the server: `HttpCarrier`, or the socket."""

    async def ask(self, body: Json, token: str | None) -> Json:
        """The GraphQL answer, with data or errors or both. Raises `Unanswered`, or a `MegatronError` that lasts."""


class HttpCarrier:
    """One POST for each request, over few kept-alive connections."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def ask(self, body: Json, token: str | None) -> Json:
        """As `Carrier` has it."""
        headers = {"content-type": "application/json", "accept": "application/graphql-response+json, application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            response = await self._http.post(self._url, content=orjson.dumps(body), headers=headers)
        except httpx.TransportError as error:
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise Unanswered(f"{type(error).__name__}: {error}", reached=not never_sent) from error
        try:
            decoded = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            decoded = None
        if isinstance(decoded, dict) and ("data" in decoded or decoded.get("errors")):
            return decoded
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise Unanswered("too many requests", reached=False, retry_seconds=_retry_after(response.headers))
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unanswered(f"status {response.status_code}", reached=True)
        raise RequestFailed(f"HTTP_{response.status_code}", f"{self._url} answered no GraphQL")


def _retry_after(headers: Mapping[str, str]) -> float:
    """The Retry-After header in seconds, or a second where it says none."""
    told = headers.get("retry-after", "")
    return min(float(told), RATE_PAUSE_SECONDS_MAX) if told.isascii() and told.isdigit() else 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A GraphQL error, read. `retry_seconds` is None where waiting does not cure it."""

    code: str
    message: str
    request_id: str
    retry_seconds: float | None

    @classmethod
    def read(cls, error: Json) -> "Fault":
        """The fault that an entry of `errors` tells."""
        extensions: Json = error.get("extensions") or {}
        code = str(extensions.get("code") or "UNKNOWN")
        told_ms = extensions.get("retryAfterMs")
        retry_s: float | None = None
        if isinstance(told_ms, int):
            retry_s = min(told_ms / 1000, RATE_PAUSE_SECONDS_MAX)
        elif code == "RATE_LIMITED":
            retry_s = 1.0
        elif extensions.get("retryable") or code == "INTERNAL_SERVER_ERROR":
            retry_s = PAUSE_SECONDS_MIN
        return cls(code, str(error.get("message") or ""), str(extensions.get("requestId") or ""), retry_s)

    def error(self) -> RequestFailed:
        """The exception for it."""
        kind = NotLoggedIn if self.code == "UNAUTHENTICATED" else RequestFailed
        return kind(self.code, self.message, self.request_id)


class Backoff:
    """Pauses that double from `PAUSE_SECONDS_MIN` to `PAUSE_SECONDS_MAX`, stretched by chance so that many clients
    that lost the same server do not come back in the same moment."""

    def __init__(self, chance: Random, pause: Callable[[float], Awaitable[None]]) -> None:
        self._chance = chance
        self._pause = pause
        self._next_s = PAUSE_SECONDS_MIN

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._next_s = PAUSE_SECONDS_MIN

    async def wait(self, at_least_s: float = 0.0) -> None:
        """The next pause, of `at_least_s` seconds or more."""
        pause_s = max(self._next_s, at_least_s) * self._chance.uniform(1.0, 1.3)
        self._next_s = min(2 * self._next_s, PAUSE_SECONDS_MAX)
        await self._pause(pause_s)


class Requests:
    """Sends operations until they are answered. `sent` and `retries` count; `trouble` says why the last attempt had no
    answer, and `attempts` how many in a row had none."""

    def __init__(
        self,
        carrier: Carrier,
        *,
        patience_seconds: float | None,
        chance: Random,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._carrier = carrier
        self._patience_s = patience_seconds
        self._chance = chance
        self._pause = pause
        self.sent = 0
        self.retries = 0
        self.trouble = ""
        self.attempts = 0

    async def execute(self, operation: Operation, variables: Mapping[str, object], *, token: str | None = None) -> Json:
        """The operation's `data`. Raises `NotLoggedIn`, `RequestFailed`, or `Unreachable` when patience ends."""
        return await self.attempt(operation, variables, token=token, patience_seconds=self._patience_s)

    async def attempt(
        self,
        operation: Operation,
        variables: Mapping[str, object],
        *,
        token: str | None,
        patience_seconds: float | None,
        doubts: list[str] | None = None,
    ) -> Json:
        """The same with a patience of its own, None for no end. `doubts` is told of each attempt that may have been
        executed though its answer is not known."""
        body = operation.body(variables)
        backoff = Backoff(self._chance, self._pause)
        end = None if patience_seconds is None else time.monotonic() + patience_seconds
        faults = 0
        while True:
            self.sent += 1
            try:
                data = await self._once(body, token)
            except Unanswered as unanswered:
                code = unanswered.fault.code if unanswered.fault else ""
                faults += code == "INTERNAL_SERVER_ERROR"
                if unanswered.reached and doubts is not None:
                    doubts.append(str(unanswered))
                if unanswered.fault and faults >= FAULTS_MAX:
                    raise unanswered.fault.error() from unanswered
                # Being told to wait is no absence.
                if end is not None and time.monotonic() >= end and code != "RATE_LIMITED":
                    raise Unreachable(
                        f"{operation.name}: no answer within {patience_seconds:g} s; the last attempt: {unanswered}"
                    ) from unanswered
                log.debug("%s is sent again: %s", operation.name, unanswered)
                self.retries += 1
                self.attempts += 1
                self.trouble = str(unanswered)
                await backoff.wait(unanswered.retry_seconds)
            else:
                self.trouble, self.attempts = "", 0
                return data

    async def _once(self, body: Json, token: str | None) -> Json:
        answer = await self._carrier.ask(body, token)
        errors = answer.get("errors")
        if errors:
            fault = Fault.read(errors[0])
            if fault.retry_seconds is None:
                raise fault.error()
            raise Unanswered(
                f"{fault.code}: {fault.message}",
                reached=fault.code != "RATE_LIMITED",
                retry_seconds=fault.retry_seconds,
                fault=fault,
            )
        data = answer.get("data")
        if not isinstance(data, dict):
            raise MegatronError(f"an answer without data and errors: {str(answer)[:200]}")
        return data
