"""A small schema behind the real HTTP endpoint, and requests to it as ASGI messages: no server, no database."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import strawberry
from graphql import GraphQLError
from starlette.types import ASGIApp, Message
from strawberry.schema.config import StrawberryConfig

from api.connections import Connections
from api.context import Info
from api.http import GraphQLEndpoint
from api.operations import Operations
from api.scalars import SCALARS, Decimal, Seq
from app import clock
from app.accounts.authentication import Authenticator
from app.accounts.passwords import PasswordHasher
from app.accounts.principals import ALL_SCOPES, ANONYMOUS, AccountPrincipal, Credential, Principal
from app.bus import Bus
from app.db import Database
from app.errors import ErrorCode, Forbidden, Unauthenticated, invalid, refuse
from app.exchange.settlement import Settlement
from app.ratelimit import RateLimiter
from app.realtime.hub import Realtime
from app.services import Services
from app.telemetry import Metrics
from tests.api.readers import Readers
from tests.conftest import make_settings

GOOD_TOKEN = "mgs_" + "g" * 43
FAILING_TOKEN = "mgs_" + "f" * 43
ALICE = AccountPrincipal(7, Credential("session", 1), ALL_SCOPES)


class StubAuthenticator(Authenticator):
    """Knows one token; asked for another, the database is away."""

    def __init__(self) -> None:
        super().__init__(cast("Database", None))

    async def principal(self, token: str | None) -> Principal:
        await asyncio.sleep(0)
        if token is None:
            return ANONYMOUS
        if token == GOOD_TOKEN:
            return ALICE
        if token == FAILING_TOKEN:
            raise ConnectionRefusedError("no database here")
        raise Unauthenticated("This token is unknown, expired or revoked: log in again.")


def stub_services(*, rate_limiter: RateLimiter | None = None, settings: Mapping[str, object] | None = None) -> Services:
    """Services without servers behind them."""
    made = make_settings(**(settings or {}))
    return Services(
        settings=made,
        database=cast("Database", None),
        redis=None,
        bus=Bus(None),
        settlement=cast("Settlement", None),
        authenticator=StubAuthenticator(),
        hasher=cast("PasswordHasher", None),
        rate_limiter=rate_limiter or RateLimiter(None, made),
        metrics=Metrics(version="0", environment="development"),
        realtime=cast("Realtime", None),
        started_at=clock.now(),
    )


# ------------------------------------------------------------------------------------------------ the schema

done: list[str] = []
"""What mutations have done."""
waiting: list[asyncio.Future[str]] = []
"""Queries that wait for their answer."""


@strawberry.type
class Item:
    name: str
    maybe: str | None = None

    @strawberry.field
    def inner(self) -> "Item":
        return Item(name=f"{self.name}'")

    @strawberry.field
    async def items(self, first: int = 50, last: int | None = None) -> "ItemConnection":
        return ItemConnection(nodes=[Item(name=f"{self.name}.{n}") for n in range(min(first, 3))])

    @strawberry.field
    def broken(self) -> str:
        raise RuntimeError("the secret is mgs_0123456789abcdef0123456789")


@strawberry.type
class ItemConnection:
    nodes: list[Item]


@strawberry.input
class OrderInput:
    shares: Decimal
    side: str = "BUY"
    seq: Seq | None = strawberry.UNSET
    tags: list[str] = strawberry.field(default_factory=list)


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    async def who(self, info: Info) -> str:
        principal = info.context.principal
        return f"account {principal.account_id}" if isinstance(principal, AccountPrincipal) else "nobody"

    @strawberry.field
    def rate(self, info: Info) -> str:
        rate = info.context.rate
        return "off" if rate is None else f"{rate.cost} {rate.remaining}/{rate.limit}"

    @strawberry.field
    def client(self, info: Info) -> str:
        return f"{info.context.client_ip} {info.context.request_id}"

    @strawberry.field
    def item(self) -> Item:
        return Item(name="i")

    @strawberry.field
    def items(self, first: int | None = None, ids: list[strawberry.ID] | None = None) -> ItemConnection:
        return ItemConnection(nodes=[Item(name=str(each)) for each in ids or range(first or 2)])

    @strawberry.field
    def listed(self) -> list[Item]:
        return [Item(name="a"), Item(name="b", maybe="m")]

    @strawberry.field
    def fails(self, how: str) -> str | None:
        raise {
            "unexpectedly": RuntimeError("the secret is mgs_0123456789abcdef0123456789"),
            "forbidden": Forbidden("This takes the scope TRADE."),
            "unauthenticated": Unauthenticated("Log in first."),
            "refused": refuse(ErrorCode.OVERLOADED, "Too many orders wait."),
            "invalid": invalid("first must be at least 0; got -1.", "first"),
            "coded": GraphQLError("No such cursor.", extensions={"code": "BAD_USER_INPUT"}),
            "uncoded": GraphQLError("the insides of something"),
            "passing": ConnectionResetError("the database went away"),
        }[how]

    @strawberry.field
    async def waits(self) -> str:
        waiting.append(asyncio.get_running_loop().create_future())
        return await waiting[-1]

    @strawberry.field
    def unencodable(self) -> str:
        return "\ud800"

    @strawberry.field
    def required(self, order: OrderInput) -> str:
        return f"{order.shares} {order.side} {order.seq!r} {order.tags}"


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def note(self, text: Annotated[str, strawberry.argument(name="text")]) -> str:
        await asyncio.sleep(0)
        done.append(text)
        return text

    @strawberry.mutation
    async def note_late(self) -> str:
        waiting.append(asyncio.get_running_loop().create_future())
        done.append(await waiting[-1])
        return "done"

    @strawberry.mutation
    async def place(self, order: OrderInput) -> str:
        done.append(order.shares)
        return order.shares


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def numbers(self, how: str = "well") -> AsyncGenerator[int, None]:
        """Opened by tests/api/readers.py, never executed."""
        yield 0


schema = strawberry.Schema(
    query=Query, mutation=Mutation, subscription=Subscription, config=StrawberryConfig(scalar_map=SCALARS)
)


# ------------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The only error."""
        (error,) = self.json["errors"]
        assert isinstance(error, dict)
        return error

    @property
    def code(self) -> str:
        """The only error's code."""
        code = self.error["extensions"]["code"]
        assert isinstance(code, str)
        return code


NO_REPLY = Reply(0, {}, b"")


@dataclass
class Edge:
    """The endpoint, and a way to ask it."""

    app: ASGIApp
    services: Services
    defaults: dict[str, str] = field(default_factory=lambda: {"host": "127.0.0.1:8000"})

    async def send(
        self,
        method: str = "POST",
        *,
        body: bytes | Sequence[bytes] = b"",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        query_string: bytes = b"",
        client: str = "127.0.0.1",
        path: str = "/graphql",
        leaves: bool = False,
        stalls: bool = False,
        broken: Exception | None = None,
    ) -> Reply:
        """One request; a body of several parts comes chunked.

        The client may leave before the end of its request (`leaves`), keep the end back (`stalls`), or close the
        connection while the answer is written, which the server then raises (`broken`).
        """
        chunks = [body] if isinstance(body, bytes) else list(body)
        incoming: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": leaves or stalls or number + 1 < len(chunks)}
            for number, chunk in enumerate(chunks)
        ]
        incoming.append({"type": "http.disconnect"})
        answers: list[Message] = []

        async def receive() -> Message:
            if stalls and len(incoming) == 1:
                await asyncio.Event().wait()
            return incoming.pop(0)

        async def answer(message: Message) -> None:
            if broken is not None:
                raise broken
            answers.append(message)

        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query_string,
            "client": (client, 50000),
            "scheme": "http",
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in [*self.defaults.items(), *pairs]
            ],
        }
        await self.app(scope, receive, answer)
        if not answers:
            return NO_REPLY
        start = answers[0]
        return Reply(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in answers[1:]),
        )

    async def post(self, query: object, variables: object = None, *, token: str | None = None, **headers: str) -> Reply:
        """An operation, by POST; underscores in header names stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["authorization"] = f"Bearer {token}"
        body = json.dumps({"query": query, "variables": variables}).encode()
        return await self.send(body=body, headers={"content-type": "application/json", **named})

    async def raw(self, body: bytes, **headers: str) -> Reply:
        """A JSON body as it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send(body=body, headers={"content-type": "application/json", **named})


def make_edge(*, rate_limiter: RateLimiter | None = None, **settings: object) -> Edge:
    """An endpoint of one's own, whose subscriptions open by stand-ins."""
    services = stub_services(rate_limiter=rate_limiter, settings=settings)
    done.clear()
    endpoint = GraphQLEndpoint(
        Operations(schema, services), connections=Connections(services), open_subscription=Readers().open
    )
    return Edge(endpoint, services)
