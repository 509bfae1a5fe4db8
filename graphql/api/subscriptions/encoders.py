"""From an event of a stream to the bytes of its GraphQL result, once for all readers whose selections are alike.

An encoder belongs to a selection. It executes the selection on events as nobody in particular; or, for an account's own
events, as their owner, and then it is made for one reader and kept nowhere. Items that never change, such as ticks, are
encoded once each, and events are put together from their JSON.

Which readers there are and what each is sent is not known here.
"""

import asyncio
import itertools
import secrets
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import orjson
from graphql import GraphQLError, GraphQLObjectType, get_named_type
from graphql.pyutils import Path

from api.context import Context
from api.error_format import ErrorFormatter, is_passing
from api.executor import OperationExecutor, is_awaitable
from api.subscriptions.selection import EventSelection
from app.accounts.principals import ANONYMOUS
from app.realtime.events import Event
from app.services import Services

Item = TypeVar("Item")

ENCODERS_KEPT: Final = 256
"""Encoders that are kept though nobody reads by them; those that somebody reads by are kept in any case."""
ITEMS_KEPT: Final = 2_048
"""Items of which an encoder keeps the JSON: the newest that it has met."""
ITEM_MEMORY_MAX_BYTES: Final = 64 * 1024 * 1024
"""What the items of all encoders may take. Once it is spent all are forgotten, and made again as they are needed."""
ITEM_OVERHEAD_BYTES: Final = 300
"""What an item takes besides its JSON."""

PAUSES_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 1.0, 1.0)
"""Between the tries to read what an event needs, while the database is away."""

_Values: TypeAlias = dict[str, Any]


def _changes(item: object) -> None:
    """The identity of an item that may change."""


@dataclass(frozen=True)
class Stream(Generic[Item]):
    """How the events of everybody's streams are shown.

    `items` is the event's field that holds the items, and `show` makes of one what its type reads. `identity` tells
    apart items that never change, whose JSON can be kept; it is None, or answers None, where an item may change.
    """

    items: str
    show: Callable[[Item], object]
    identity: Callable[[Item], Hashable | None] = _changes


class _ItemMemory:
    """What the items of all encoders may still take."""

    def __init__(self, maximum: int, forget: Callable[[], None]) -> None:
        self._left = self._maximum = maximum
        self._forget = forget

    def take(self, size: int) -> None:
        """An item of that size is kept from now on, perhaps at the cost of all others."""
        self._left -= size
        if self._left < 0:
            self._forget()
            self._left = self._maximum - size

    def give_back(self, size: int) -> None:
        """An item of that size is kept no longer."""
        self._left += size


class _Items(Generic[Item]):
    """A list of items in the event's selection; there may be several of them, under names of their own."""

    def __init__(
        self,
        selection: EventSelection,
        *,
        key: str,
        stream: Stream[Item],
        memory: _ItemMemory,
    ) -> None:
        self.path = Path(Path(None, selection.key, "Subscription"), key, selection.type.name)
        self.type = _item_type(selection, stream)
        self.fields = selection.fields_of(self.type, selection.fields()[key])
        self.encoded = 0
        self._plain = selection.plain_fields(self.type, self.fields)
        self._show = stream.show
        self._identity = stream.identity
        self._memory = memory
        self._kept: dict[Hashable, orjson.Fragment] = {}
        self._sizes: deque[int] = deque()

    def plain(self, items: Sequence[Item]) -> list[orjson.Fragment | _Values] | None:
        """Each item's JSON or what that is made of; None where an executor is needed."""
        plain, identity, kept = self._plain, self._identity, self._kept
        if plain is None:
            return None
        values: list[orjson.Fragment | _Values] = []
        for item in items:
            key = identity(item)
            known = kept.get(key)
            if known is not None:
                values.append(known)
                continue
            read = plain.read(self._show(item))
            if read is None:
                return None
            self.encoded += 1
            values.append(read if key is None else self._keep(key, read))
        return values

    def values(self, executor: OperationExecutor, items: Sequence[Item]) -> list[Any]:
        """Each item's value, or an awaitable of it. Raises what a field that may not be null ended with."""
        values: list[Any] = []
        try:
            for index, item in enumerate(items):
                self.encoded += 1
                path = Path(self.path, index, None)
                values.append(executor.execute_fields(self.type, self._show(item), path, self.fields, None))
        except Exception:
            executor.track_async_work(values)
            raise
        return values

    def forget(self) -> None:
        """Keep no item's JSON."""
        self._kept.clear()
        self._sizes.clear()

    def _keep(self, key: Hashable, value: _Values) -> orjson.Fragment:
        encoded = orjson.dumps(value)
        size = len(encoded) + ITEM_OVERHEAD_BYTES
        self._memory.take(size)
        if len(self._kept) >= ITEMS_KEPT:
            self._kept.pop(next(iter(self._kept)))
            self._memory.give_back(self._sizes.popleft())
        self._sizes.append(size)
        fragment = self._kept[key] = orjson.Fragment(encoded)
        return fragment


def _item_type(selection: EventSelection, stream: Stream[Item]) -> GraphQLObjectType:
    type_ = get_named_type(selection.type.fields[stream.items].type)
    if not isinstance(type_, GraphQLObjectType):
        raise TypeError(f"{selection.type}.{stream.items} is no list of objects")
    return type_


class _Execution:
    """One event on its way through the executor."""

    def __init__(self, selection: EventSelection, context: Context) -> None:
        self.context = context
        self.executor = OperationExecutor(selection.operation, context, selection.variables)
        self.values: _Values | Awaitable[_Values] = {}
        self.failure: Exception | None = None
        """What ended the event as a whole."""

    @property
    def is_pending(self) -> bool:
        """Whether something is still awaited."""
        return not isinstance(self.values, dict)

    async def settle(self) -> None:
        """Wait until nothing is awaited any more."""
        if isinstance(self.values, dict):
            return
        try:
            self.values = await self.values
        except Exception as error:
            self.values, self.failure = {}, error

    @property
    def field_errors(self) -> list[GraphQLError]:
        """What fields ended with."""
        ended = [self.failure] if isinstance(self.failure, GraphQLError) else []
        return [*self.executor.collected_errors.errors, *ended]

    @property
    def may_pass(self) -> bool:
        """Whether anything failed that may succeed in a moment."""
        return any(map(is_passing, self.field_errors)) or (self.failure is not None and is_passing(self.failure))


class EventEncoder(ABC, Generic[Item]):
    """An `app.realtime.events.Encoder`. `executions` counts the events that it was given."""

    def __init__(self, selection: EventSelection, *, context: Callable[[], Context], errors: ErrorFormatter) -> None:
        self._selection = selection
        self._context = context
        self._errors = errors
        self._path = Path(None, selection.key, "Subscription")
        self._envelope = selection.fields()
        self.executions = 0

    def __call__(self, event: Event[Item]) -> bytes | Awaitable[bytes]:
        """The event's result: at once, unless something must be read. What goes wrong is told in it."""
        self.executions += 1
        execution = self._executed(event)
        return self._finished(event, execution) if execution.is_pending else self._encoded(execution)

    def _executed(self, event: Event[Item]) -> _Execution:
        """Execute the selection on the event, as far as that goes without waiting."""
        execution = _Execution(self._selection, self._context())
        try:
            execution.values = self._execute(execution.executor, event)
        except Exception as error:
            execution.failure = error
        return execution

    @abstractmethod
    def _execute(self, executor: OperationExecutor, event: Event[Item]) -> _Values | Awaitable[_Values]:
        """The event's fields. Raises what a field that may not be null ended with."""

    async def _finished(self, event: Event[Item], execution: _Execution) -> bytes:
        """Wait for what must be read. While the database is away for a moment, the event waits for it: a reader that
        were sent an error in its place would have to come back for it."""
        for pause in (*PAUSES_SECONDS, None):
            await execution.settle()
            if pause is None or not execution.may_pass:
                break
            await asyncio.sleep(pause)
            execution = self._executed(event)
        return self._encoded(execution)

    def _encoded(self, execution: _Execution) -> bytes:
        request_id, name = execution.context.request_id, self._selection.name
        errors = [self._errors.field_error(error, request_id, name) for error in execution.field_errors]
        failure = execution.failure
        if failure is not None and not isinstance(failure, GraphQLError):
            errors.append(self._errors.unexpected(failure, request_id, name))
        # The event may not be null: what may not be null in it ends it as a whole.
        answer: _Values = {"data": None if failure is not None else {self._selection.key: execution.values}}
        if errors:
            answer["errors"] = errors
        try:
            return orjson.dumps(answer)
        except TypeError as error:
            return orjson.dumps({"data": None, "errors": [self._errors.unexpected(error, request_id, name)]})


class SharedEncoder(EventEncoder[Item]):
    """Of events that are the same for everybody. The event's own fields are read from the event itself."""

    def __init__(
        self,
        selection: EventSelection,
        *,
        stream: Stream[Item],
        context: Callable[[], Context],
        errors: ErrorFormatter,
        memory: _ItemMemory,
    ) -> None:
        super().__init__(selection, context=context, errors=errors)
        fields = self._envelope
        self._order = list(fields)
        self._items: dict[str, _Items[Item]] = {
            key: _Items(selection, key=key, stream=stream, memory=memory)
            for key, details in fields.items()
            if details[0].node.name.value == stream.items
        }
        self._plain = selection.plain_fields(selection.type, fields, left_blank=self._items.keys())
        self._envelope = {key: details for key, details in fields.items() if key not in self._items}

    def __call__(self, event: Event[Item]) -> bytes | Awaitable[bytes]:
        """The event's result: at once, unless something must be read. What goes wrong is told in it."""
        try:
            plain = self._plain_result(event)
        except Exception:
            plain = None  # told below, by the way that says what went wrong
        if plain is None:
            return super().__call__(event)
        self.executions += 1
        return plain

    @property
    def items_encoded(self) -> int:
        """Items that have been encoded so far, each once for each place where it stands in the selection."""
        return sum(items.encoded for items in self._items.values())

    def forget_items(self) -> None:
        """Keep no item's JSON: it is made again as it is needed."""
        for items in self._items.values():
            items.forget()

    def _plain_result(self, event: Event[Item]) -> bytes | None:
        """The result put together of what needs no executor; None where one is needed."""
        values = None if self._plain is None else self._plain.read(event)
        if values is None:
            return None
        for key, items in self._items.items():
            plain = items.plain(event.items)
            if plain is None:
                return None
            values[key] = plain
        return orjson.dumps({"data": {self._selection.key: values}})

    def _execute(self, executor: OperationExecutor, event: Event[Item]) -> _Values | Awaitable[_Values]:
        values: _Values = executor.execute_fields(self._selection.type, event, self._path, self._envelope, None)
        for key, items in self._items.items():
            values[key] = items.values(executor, event.items)
        if any(is_awaitable(value) for key in self._items for value in values[key]):
            return self._gathered(executor, values)
        return self._ordered(values)

    async def _gathered(self, executor: OperationExecutor, values: _Values) -> _Values:
        waiting = [value for key in self._items for value in values[key] if is_awaitable(value)]
        settled = iter(await executor.gather_async_work(waiting))
        for key in self._items:
            values[key] = [next(settled) if is_awaitable(value) else value for value in values[key]]
        return self._ordered(values)

    def _ordered(self, values: _Values) -> _Values:
        return {key: values[key] for key in self._order}


class OwnEncoder(EventEncoder[Item]):
    """Of the events of one account, for one reader. `show` makes of an event what its type reads."""

    def __init__(
        self,
        selection: EventSelection,
        *,
        show: Callable[[Event[Item]], object],
        context: Callable[[], Context],
        errors: ErrorFormatter,
    ) -> None:
        super().__init__(selection, context=context, errors=errors)
        self._show = show

    def _execute(self, executor: OperationExecutor, event: Event[Item]) -> _Values | Awaitable[_Values]:
        values: _Values | Awaitable[_Values] = executor.execute_fields(
            self._selection.type, self._show(event), self._path, self._envelope, None
        )
        return values


class Encoders:
    """The encoders of one process: alike selections get the very same one for as long as anybody reads by it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._errors = ErrorFormatter(services.metrics.graphql_error)
        self._memory = _ItemMemory(ITEM_MEMORY_MAX_BYTES, self._forget_items)
        self._alive: WeakValueDictionary[str, SharedEncoder[Any]] = WeakValueDictionary()
        self._recent: OrderedDict[str, SharedEncoder[Any]] = OrderedDict()
        self._own_selections: OrderedDict[str, EventSelection] = OrderedDict()
        self._id_prefix = f"event-{secrets.token_hex(4)}"
        self._id_numbers = itertools.count(1)

    def shared(self, selection: EventSelection, stream: Stream[Item]) -> SharedEncoder[Item]:
        """The encoder of everybody's events under this selection."""
        text = selection.text()
        encoder = self._alive.get(text)
        if encoder is None:
            encoder = SharedEncoder(
                selection, stream=stream, context=self._nobody, errors=self._errors, memory=self._memory
            )
            self._alive[text] = encoder
        self._recent[text] = encoder
        self._recent.move_to_end(text)
        if len(self._recent) > ENCODERS_KEPT:
            self._recent.popitem(last=False)
        return encoder

    def own(
        self, selection: EventSelection, *, context: Context, show: Callable[[Event[Item]], object]
    ) -> OwnEncoder[Item]:
        """An encoder of its own for the reader in `context`, who sees its events as its own queries would.

        Alike selections share how they are executed, which has nothing of the reader; never what comes of it.
        """
        text = selection.text()
        alike = self._own_selections.setdefault(text, selection)
        self._own_selections.move_to_end(text)
        if len(self._own_selections) > ENCODERS_KEPT:
            self._own_selections.popitem(last=False)
        return OwnEncoder(alike, show=show, context=_renewed(context), errors=self._errors)

    def _nobody(self) -> Context:
        """Who shared events are executed as: what they show to nobody in particular, they may show to everybody."""
        return Context(
            principal=ANONYMOUS,
            services=self._services,
            request_id=f"{self._id_prefix}-{next(self._id_numbers):x}",
            client_ip="",
        )

    def _forget_items(self) -> None:
        for encoder in list(self._alive.values()):
            encoder.forget_items()


def _renewed(context: Context) -> Callable[[], Context]:
    """Makes contexts of the same caller in which nothing has been read. Does not hold on to `context` itself."""
    return partial(
        Context,
        principal=context.principal,
        services=context.services,
        request_id=context.request_id,
        client_ip=context.client_ip,
    )
