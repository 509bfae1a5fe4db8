"""Stand-ins for what opens subscriptions: a test decides what becomes of each, and sees what it is told."""

import asyncio
from dataclasses import dataclass, field

from graphql import GraphQLError
from graphql.execution.values import VariableValues

from api.context import Context
from api.operation_cache import ReadyOperation
from app.accounts.principals import Principal
from app.errors import ErrorCode, Forbidden, invalid, refuse
from app.realtime.events import Sink


@dataclass(eq=False)
class StandIn:
    """The reader of one subscription. `told` is what its connection said of itself."""

    sink: Sink
    principal: Principal
    told: list[str] = field(default_factory=list)
    closed: int = 0

    def close(self) -> None:
        self.closed += 1

    def congested(self) -> None:
        self.told.append("congested")

    def drained(self) -> None:
        self.told.append("drained")


class Readers:
    """Opens every subscription by a stand-in. `how` says otherwise: "forbidden", "refused", "coded", "broken"; a
    "slow" one waits for `go`; a "short" one says one number and completes; "early" says one before it is open."""

    def __init__(self) -> None:
        self.opened: list[StandIn] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def open(self, *, ready: ReadyOperation, variables: VariableValues, context: Context, sink: Sink) -> StandIn:
        node = ready.operation.node.selection_set.selections[0]
        how = node.to_dict()["arguments"][0]["value"]["value"] if node.to_dict()["arguments"] else "well"
        if "how" in variables.coerced:
            how = variables.coerced["how"]
        match how:
            case "forbidden":
                raise Forbidden("This takes the scope READ.")
            case "refused":
                raise refuse(ErrorCode.NOT_FOUND, "There is no such asset.", "assetIds")
            case "invalid":
                raise invalid("after is no cursor of this stream.", "after")
            case "coded":
                raise GraphQLError("No.", extensions={"code": "BAD_USER_INPUT"})
            case "broken":
                raise RuntimeError("the secret is mgs_0123456789abcdef0123456789")
            case "slow":
                self.asked.set()
                await self.go.wait()
            case "early":
                sink.send(number(0))
        reader = StandIn(sink, context.principal)
        self.opened.append(reader)
        if how == "short":
            sink.send(number(1))
            sink.complete()
        return reader


def sized(length: int) -> bytes:
    """The result of an event of about so many bytes."""
    return b'{"data":{"numbers":%b}}' % (b"7" * length)


def number(value: int) -> bytes:
    """The result of an event."""
    return b'{"data":{"numbers":%d}}' % value
