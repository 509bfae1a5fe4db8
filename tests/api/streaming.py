"""Subscriptions without a transport: readers that keep what they are sent, and a hub that does no more than it is told.

`FakeRealtime` groups its readers as the hub does: by stream, encoder and parameters.
"""

from collections.abc import Awaitable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any, Final, cast

import orjson
from graphql import GraphQLEnumType, GraphQLNamedType, GraphQLObjectType, get_named_type, is_required_argument

from api.context import Context
from api.operation_cache import OperationCache, ReadyOperation
from api.schema import schema
from api.subscriptions.opening import open_subscription
from app.accounts.principals import ANONYMOUS, Principal
from app.pricing.ticks import Tick, TickCause
from app.realtime.events import Event, EventKind, Reader
from app.realtime.hub import Realtime
from app.services import Services

AT: Final = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
_DOCUMENTS: Final = OperationCache(schema._schema)


@dataclass
class ListSink:
    """A connection that is never slow. `payloads` are what it was sent."""

    payloads: list[bytes] = field(default_factory=list)
    completed: bool = False
    congested: bool = False

    def send(self, payload: bytes) -> None:
        self.payloads.append(payload)

    def complete(self) -> None:
        self.completed = True

    def too_slow(self) -> None:
        raise AssertionError("nobody is slow here")

    @property
    def results(self) -> list[dict[str, Any]]:
        """What it was sent, read."""
        return [orjson.loads(payload) for payload in self.payloads]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of a field, none of which has errors."""
        results = self.results
        assert [result["errors"] for result in results if "errors" in result] == []
        return [result["data"][name] for result in results]


@dataclass
class FakeReader:
    """A reader of `FakeRealtime`."""

    sink: Any
    closed: bool = False

    def close(self) -> None:
        self.closed = True

    def congested(self) -> None: ...

    def drained(self) -> None: ...


@dataclass
class Opened:
    """Readers who are served as one."""

    stream: str
    encode: Any
    parameters: dict[str, object]
    sinks: list[Any] = field(default_factory=list)

    async def emit(self, *items: object, kind: EventKind = EventKind.UPDATE, seq: int = 0) -> bytes:
        """Encode one event for all of the readers and send it; answers its bytes."""
        encoded: bytes | Awaitable[bytes] = self.encode(event(*items, kind=kind, seq=seq))
        payload = await encoded if isawaitable(encoded) else encoded
        assert isinstance(payload, bytes)
        for sink in self.sinks:
            sink.send(payload)
        return payload


_OF_THE_READER: Final = ("after", "snapshot")
"""What is served to each reader by itself, and so is not part of what must be alike."""


class FakeRealtime:
    """Stands for `app.realtime.hub.Realtime`. `asked` are the parameters of the readers, in their order."""

    def __init__(self) -> None:
        self.groups: dict[Hashable, Opened] = {}
        self.asked: list[dict[str, object]] = []

    def __iter__(self) -> Iterator[Opened]:
        return iter(self.groups.values())

    def the_only(self) -> Opened:
        """The group, when there is just one."""
        (group,) = self.groups.values()
        return group

    async def price_ticks(self, **given: Any) -> Reader:
        return self._open("price_ticks", **given)

    async def trades(self, **given: Any) -> Reader:
        return self._open("trades", **given)

    async def candles(self, **given: Any) -> Reader:
        return self._open("candles", **given)

    async def asset_events(self, **given: Any) -> Reader:
        return self._open("asset_events", **given)

    async def account_events(self, **given: Any) -> Reader:
        return self._open("account_events", **given)

    async def oracle_reports(self, **given: Any) -> Reader:
        return self._open("oracle_reports", **given)

    def _open(self, stream: str, *, sink: Any, encode: Any, **parameters: object) -> Reader:
        self.asked.append(parameters)
        alike = {name: value for name, value in parameters.items() if name not in _OF_THE_READER}
        key = (stream, encode, tuple(sorted(alike.items())))
        self.groups.setdefault(key, Opened(stream, encode, alike)).sinks.append(sink)
        return FakeReader(sink)


def ready(document: str, name: str | None = None) -> ReadyOperation:
    """The operation of a document, which must be valid."""
    operation = _DOCUMENTS.document(document).operation(name)
    assert isinstance(operation, ReadyOperation), operation
    return operation


async def subscribe(
    services: Services,
    document: str,
    variables: dict[str, Any] | None = None,
    *,
    principal: Principal = ANONYMOUS,
    sink: ListSink | None = None,
    name: str | None = None,
) -> Reader:
    """Open a subscription as a transport does, once it knows who asks."""
    operation = ready(document, name)
    values = operation.operation.coerce_variables(variables or {})
    assert not isinstance(values, list), values
    context = Context(principal=principal, services=services, request_id="a-request", client_ip="127.0.0.1")
    return await open_subscription(ready=operation, variables=values, context=context, sink=sink or ListSink())


def event(*items: object, kind: EventKind = EventKind.UPDATE, seq: int = 0, missed: int | None = None) -> Event[Any]:
    """An event with these items, at the cursor "p7"."""
    return Event(kind, items, "p7", AT, missed, seq)


def tick(asset_id: int, seq: int, **values: Any) -> Tick:
    """A tick with prices that tell it from others."""
    given = {
        "position": seq,
        "cause": TickCause.TRADE,
        "trade_seq": seq,
        "at": AT,
        "display": 10**12 + seq,
        "market": 2 * 10**12,
        "fundamental": 3 * 10**12,
        "market_weight": 500_000_000,
        "volume": 1_500_000,
        "stale": False,
        **values,
    }
    return Tick(asset_id=asset_id, seq=seq, **given)


def ticks(asset_id: int, count: int) -> Sequence[Tick]:
    """An asset's first ticks."""
    return [tick(asset_id, seq) for seq in range(1, count + 1)]


def whole_selection(type_: GraphQLNamedType, *, first: int = 1) -> str:
    """Everything that can be asked of a type's objects, as deep as it goes; no type here leads back to itself. Of each
    list that is paged, a page of `first`."""
    if not isinstance(type_, GraphQLObjectType):
        return ""
    fields = [
        f"{name}{f'(first: {first})' if 'first' in field.args else ''}"
        f"{whole_selection(get_named_type(field.type), first=first)}"
        for name, field in type_.fields.items()
        if not any(is_required_argument(argument) for argument in field.args.values())
    ]
    return f" {{ __typename {' '.join(fields)} }}"


def reachable(type_: GraphQLNamedType) -> dict[str, GraphQLObjectType]:
    """The object types that can be reached from a type's fields, itself included, by name."""
    found: dict[str, GraphQLObjectType] = {}
    waiting = [type_]
    while waiting:
        each = waiting.pop()
        if isinstance(each, GraphQLObjectType) and each.name not in found:
            found[each.name] = each
            waiting += [get_named_type(field.type) for field in each.fields.values()]
        else:
            assert isinstance(each, GraphQLObjectType | GraphQLEnumType) or not hasattr(each, "fields"), each
    return found


def streams() -> dict[str, GraphQLObjectType]:
    """Every subscription and the type of its events."""
    root = schema._schema.subscription_type
    assert root is not None
    found: dict[str, GraphQLObjectType] = {}
    for name, each in root.fields.items():
        type_ = get_named_type(each.type)
        assert isinstance(type_, GraphQLObjectType)
        found[name] = type_
    return found


def with_realtime(services: Services, realtime: FakeRealtime | Realtime) -> Services:
    """The same services with another hub."""
    return replace(services, realtime=cast(Realtime, realtime))
