"""Batched settlement: orders that wait are settled together, one transaction after the other.

While one batch commits the next one gathers, so without load an order's latency is that of a single commit, and under
load hundreds share one. What is decided, and in which order the rows are locked, stands in `batch` and `decide`.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import asyncpg

from app.db import Connection, Database, is_open
from app.errors import ErrorCode, refuse
from app.exchange.batch import Answer, OrderOutcome, Settled, settle
from app.exchange.orders import OrderRequest, Trade
from app.ledger.locks import PAUSE_LOCK

log = logging.getLogger(__name__)

BATCH_ORDERS_MAX: Final = 256
WAITING_PER_ACCOUNT_MAX: Final = 20
WAITING_MAX: Final = 5_000
RETRIES_MAX: Final = 5
RETRY_DELAY_S: Final = 0.2

_BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock_shared({PAUSE_LOCK})"
_LOST_CONNECTION = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError)
_TRY_AGAIN = (
    *_LOST_CONNECTION,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
)


class SettlementUnavailable(Exception):  # noqa: N818
    """The database could not be reached. Whether the order happened is told by sending it again with the same key."""


class Observer(Protocol):
    """Who measures settlement. Must neither block nor raise."""

    def settled(self, *, orders: int, seconds: float) -> None:
        """A batch has committed."""

    def answered(self, answer: Answer) -> None:
        """An order has got its answer."""


@dataclass(slots=True, eq=False)
class _Waiter:
    request: OrderRequest
    answer: "asyncio.Future[Answer]"


class Settlement:
    """The process's settlement. `start` before use, `stop` to finish what waits.

    After a batch has committed `publish` is told of its trades and `changed` of the accounts that have new events;
    both must neither block nor raise.
    """

    def __init__(
        self,
        database: Database,
        *,
        publish: Callable[[Sequence[Trade]], None],
        changed: Callable[[Collection[int]], None] = lambda _: None,
        observer: Observer | None = None,
    ) -> None:
        self._database = database
        self._publish = publish
        self._changed = changed
        self._observer = observer
        self._waiting: deque[_Waiter] = deque()
        self._per_account: Counter[int] = Counter()
        self._wake = asyncio.Event()
        self._stopping = False
        self._runner: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many orders wait now."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to settle."""
        self._runner = asyncio.create_task(self._run(), name="settlement")

    async def stop(self) -> None:
        """Settle what waits, then end."""
        self._stopping = True
        self._wake.set()
        if self._runner is not None:
            await self._runner

    async def place(self, request: OrderRequest) -> OrderOutcome:
        """Wait until `request` is settled. An order that is answered is durable.

        Raises `Refused` for what binds no key (NOT_FOUND, IDEMPOTENCY_KEY_REUSED, OVERLOADED), `Unauthenticated` when
        the credential ended meanwhile, `SettlementUnavailable` when the database stays away. A refusal under the lock
        is an outcome. When the caller is cancelled the order may still happen, wholly or not at all.
        """
        account_id = request.account_id
        if self._per_account[account_id] >= WAITING_PER_ACCOUNT_MAX:
            raise refuse(
                ErrorCode.OVERLOADED,
                f"{WAITING_PER_ACCOUNT_MAX} orders of this account are waiting; send the next when one is answered.",
            )
        if len(self._waiting) >= WAITING_MAX or self._stopping:
            raise refuse(ErrorCode.OVERLOADED, "The exchange has too many orders waiting; try again in a second.")
        waiter = _Waiter(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._per_account[account_id] += 1
        self._wake.set()
        answer = await asyncio.shield(waiter.answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    # ------------------------------------------------------------------------------------------------ the runner

    async def _run(self) -> None:
        while not (self._stopping and not self._waiting):
            try:
                async with self._database.acquire() as connection:
                    await self._settle_on(connection)
            except Exception:
                log.exception("settlement has no connection")
                await self._fail_waiting_after_delay()

    async def _settle_on(self, connection: Connection) -> None:
        """Settle on this connection for as long as it lives."""
        while is_open(connection):
            if not self._waiting:
                if self._stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_ORDERS_MAX))]
            await self._settle_batch(connection, batch)

    async def _fail_waiting_after_delay(self) -> None:
        """No connection at all: those who wait now are told, so that nobody waits for ever."""
        told = list(self._waiting)
        self._waiting.clear()
        for waiter in told:
            self._fail(waiter, SettlementUnavailable("The database cannot be reached; send the order again."))
        await asyncio.sleep(RETRY_DELAY_S)

    async def _settle_batch(self, connection: Connection, batch: list[_Waiter]) -> None:
        started = time.perf_counter()
        try:
            settled = await self._transact(connection, [waiter.request for waiter in batch])
        except _TRY_AGAIN as error:
            await self._settle_again(batch, error)
            return
        except Exception as error:
            await self._settle_alone(connection, batch, error)
            return
        self._conclude(batch, settled)
        if self._observer is not None:
            self._observer.settled(orders=len(batch), seconds=time.perf_counter() - started)

    def _conclude(self, batch: Sequence[_Waiter], settled: Settled) -> None:
        """The batch has committed: tell of it, which takes no time here, and answer everybody."""
        if settled.trades:
            self._publish(settled.trades)
        if settled.account_ids:
            self._changed(settled.account_ids)
        for waiter, answer in zip(batch, settled.answers, strict=True):
            self._answer(waiter, answer)

    async def _transact(self, connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        try:
            await connection.execute(_BEGIN)
            settled = await settle(connection, requests)
            await connection.execute("COMMIT")
        except Exception as error:
            if not await _roll_back(connection):
                # Whatever was raised on a connection that died under it (event loops have errors of their own for
                # that) says nothing about the orders.
                raise ConnectionError("the connection to the database was lost") from error
            raise
        except BaseException:
            await _roll_back(connection)
            raise
        return settled

    async def _settle_alone(self, connection: Connection, batch: list[_Waiter], error: Exception) -> None:
        """The batch failed for a reason nobody expected: find whose fault it was, and let the others trade."""
        if len(batch) == 1:
            log.error("order failed", exc_info=error)
            self._fail(batch[0], error)
            return
        log.warning("a batch of %d failed, settling each alone", len(batch), exc_info=error)
        for waiter in batch:
            await self._settle_batch(connection, [waiter])

    async def _settle_again(self, batch: list[_Waiter], error: Exception) -> None:
        """The connection was lost, perhaps after the commit. The keys tell, so settling again is safe."""
        for attempt in range(RETRIES_MAX):
            await asyncio.sleep(RETRY_DELAY_S * attempt)
            try:
                async with self._database.acquire() as connection:
                    settled = await self._transact(connection, [waiter.request for waiter in batch])
            except _TRY_AGAIN as again:
                error = again
                continue
            except Exception as other:
                await self._settle_again_alone(batch, other)
                return
            self._conclude(batch, settled)
            return
        log.error("a batch of %d could not be settled", len(batch), exc_info=error)
        for waiter in batch:
            self._fail(
                waiter,
                SettlementUnavailable(
                    "The database cannot be reached; whether the order happened is told by sending it again with the"
                    " same clientOrderId."
                ),
            )

    async def _settle_again_alone(self, batch: list[_Waiter], error: Exception) -> None:
        """As `_settle_alone`, on a connection for each."""
        if len(batch) == 1:
            log.error("order failed", exc_info=error)
            self._fail(batch[0], error)
            return
        log.warning("a batch of %d failed again, settling each alone", len(batch), exc_info=error)
        for waiter in batch:
            await self._settle_again([waiter], error)

    def _answer(self, waiter: _Waiter, answer: Answer) -> None:
        self._leave(waiter)
        if not waiter.answer.done():
            waiter.answer.set_result(answer)
        if self._observer is not None:
            self._observer.answered(answer)

    def _fail(self, waiter: _Waiter, error: Exception) -> None:
        self._leave(waiter)
        if not waiter.answer.done():
            waiter.answer.set_exception(error)

    def _leave(self, waiter: _Waiter) -> None:
        account_id = waiter.request.account_id
        self._per_account[account_id] -= 1
        if not self._per_account[account_id]:
            del self._per_account[account_id]


async def _roll_back(connection: Connection) -> bool:
    """Undo the transaction; whether the connection is in order again. If it is not, it is closed."""
    if is_open(connection):
        try:
            await connection.execute("ROLLBACK")
        except Exception as error:
            log.warning("a connection could not be rolled back and is closed: %r", error)
            with suppress(asyncpg.InterfaceError):
                connection.terminate()
        else:
            return True
    return False
