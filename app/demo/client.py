"""A patient GraphQL client over HTTP, as any bot would write one: it outlives restarts, rate limits and lost answers.

Every request may be sent more than once. That is safe because each mutation of the demo either carries a key or can be
told from its outcome. It knows nothing of trading.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import Any, Final

import httpx
import orjson

TIMEOUT_SECONDS: Final = 15.0
PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 5.0
RATE_PAUSE_SECONDS_MAX: Final = 120.0
FAULTS_MAX: Final = 6
"""How often an answer that says "my fault" is asked for again."""

Json = dict[str, Any]
"""A decoded JSON object."""


class NotLoggedIn(Exception):  # noqa: N818
    """The token is no longer good: log in and ask again."""


class Rejected(Exception):  # noqa: N818
    """The server answered with a GraphQL error that waiting does not cure."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Operation:
    """A document of one operation, and the operation's name."""

    name: str
    document: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """One HTTP answer, read: either data, or an error's code with what it says about trying again."""

    data: Json | None = None
    code: str = ""
    message: str = ""
    retry_seconds: float | None = None


class Client:
    """Sends operations to one GraphQL address over few kept-alive connections."""

    def __init__(
        self,
        url: str,
        *,
        chance: Random,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._chance = chance
        self._pause = pause
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
        )
        self.requests = 0
        self.retries = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def execute(self, operation: Operation, variables: Mapping[str, object], *, token: str | None = None) -> Json:
        """The operation's `data`, however long the server is away.

        Raises `NotLoggedIn` when the token is refused and `Rejected` for errors that waiting does not cure.
        """
        body = orjson.dumps({"query": operation.document, "operationName": operation.name, "variables": variables})
        pause_s, faults = PAUSE_SECONDS_MIN, 0
        while True:
            self.requests += 1
            answer = await self._send(body, token)
            if answer is not None:
                if answer.data is not None and not answer.code:
                    return answer.data
                if answer.code == "UNAUTHENTICATED":
                    raise NotLoggedIn(answer.message)
                if answer.retry_seconds is None:
                    raise Rejected(answer.code, answer.message)
                # Being told to wait is no fault, and neither is a server that is away.
                faults += answer.code != "RATE_LIMITED"
                if faults >= FAULTS_MAX:
                    raise Rejected(answer.code, answer.message)
                pause_s = max(pause_s, answer.retry_seconds)
            self.retries += 1
            await self._pause(pause_s * self._chance.uniform(1.0, 1.3))
            pause_s = min(2 * pause_s, PAUSE_SECONDS_MAX)

    async def _send(self, body: bytes, token: str | None) -> _Answer | None:
        """The server's answer; None when there is none to be had now."""
        headers = {"content-type": "application/json", "accept": "application/graphql-response+json, application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            response = await self._http.post(self._url, content=body, headers=headers)
        except httpx.TransportError:
            return None
        try:
            decoded = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            decoded = None
        if isinstance(decoded, dict) and ("data" in decoded or decoded.get("errors")):
            return _read(decoded, response)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            return _Answer(code="RATE_LIMITED", retry_seconds=_retry_after(response))
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        raise Rejected(f"HTTP_{response.status_code}", f"{self._url} answered {response.status_code} and no GraphQL")


def _read(decoded: Json, response: httpx.Response) -> _Answer:
    errors = decoded.get("errors")
    if not errors:
        return _Answer(data=decoded["data"])
    extensions: Json = errors[0].get("extensions") or {}
    code = str(extensions.get("code") or "UNKNOWN")
    message = str(errors[0].get("message") or "")
    told_ms = extensions.get("retryAfterMs")
    if isinstance(told_ms, int):
        return _Answer(code=code, message=message, retry_seconds=min(told_ms / 1000, RATE_PAUSE_SECONDS_MAX))
    if code == "RATE_LIMITED":
        return _Answer(code=code, message=message, retry_seconds=_retry_after(response))
    curable = bool(extensions.get("retryable")) or code == "INTERNAL_SERVER_ERROR"
    return _Answer(code=code, message=message, retry_seconds=PAUSE_SECONDS_MIN if curable else None)


def _retry_after(response: httpx.Response) -> float:
    """The Retry-After header in seconds, or a second where it says none."""
    told = response.headers.get("retry-after", "")
    return min(float(told), RATE_PAUSE_SECONDS_MAX) if told.isascii() and told.isdigit() else 1.0
