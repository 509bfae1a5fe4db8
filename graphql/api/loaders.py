"""What one request reads, gathered: every object of a kind that one level of a query asks for comes by one statement.

A request keeps what it has read. After a mutation the loaders are made anew, so that the payload
shows what is true then. Who may see an object is decided where it is handed out, not here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Generic, TypeVar

from app import clock
from app.accounts.api_keys import ApiKey, api_keys_by_id
from app.accounts.asset_requests import AssetRequest, asset_requests_by_id
from app.accounts.profiles import Account, accounts_by_id
from app.admin.audit_log import AuditEntry, audit_entries_by_id
from app.db import Connection, Database
from app.exchange import reads
from app.exchange.assets import Asset
from app.exchange.orders import Order, Trade
from app.ledger.reads import Cash, StatementEntry, cash_of, entries_by_id
from app.oracle.kinds import Evidence
from app.oracle.report_pages import report_pages
from app.oracle.report_reads import OracleStatus, evidence_of, oracle_statuses, reports_by_id
from app.oracle.report_rows import Report
from app.paging import Page
from app.pricing.reads import latest_ticks
from app.pricing.stats import DayStats, day_stats, untracked_day
from app.pricing.ticks import Tick

K = TypeVar("K")
V = TypeVar("V")


class Loader(Generic[K, V]):
    """Fetches together what is asked for in one turn of the event loop; each key once."""

    __slots__ = ("_answers", "_fetch", "_tasks", "_waiting")

    def __init__(self, fetch: Callable[[list[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._fetch = fetch
        self._answers: dict[K, asyncio.Future[V | None]] = {}
        self._waiting: list[K] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, key: K) -> V | None:
        """What belongs to `key`; None if nothing does."""
        answer = self._answers.get(key)
        if answer is None:
            loop = asyncio.get_running_loop()
            answer = self._answers[key] = loop.create_future()
            if not self._waiting:
                # Everything that is ready to run now runs first, and adds its keys.
                loop.call_soon(self._dispatch)
            self._waiting.append(key)
        elif answer.done():
            return answer.result()
        # A field that is given up must not take the answer from the others that wait for it.
        return await asyncio.shield(answer)

    async def load_many(self, keys: Sequence[K]) -> list[V | None]:
        """What belongs to each of `keys`, in their order."""
        return await asyncio.gather(*(self.load(key) for key in keys))

    def _dispatch(self) -> None:
        keys, self._waiting = self._waiting, []
        task = asyncio.create_task(self._answer(keys))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, keys: list[K]) -> None:
        try:
            found = await self._fetch(keys)
        except Exception as error:
            for key in keys:
                self._answers[key].set_exception(error)
                self._answers[key].exception()  # a key that nobody waits for any more is no news
            return
        for key in keys:
            self._answers[key].set_result(found.get(key))


class Loaders:
    """The loaders of one request, made as they are first used. `at` is the moment that the request calls now."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.at: datetime = clock.now()

    @cached_property
    def assets(self) -> Loader[int, Asset]:
        """Assets by id, drafts included."""
        return self._by(lambda connection, ids: reads.assets_by_id(connection=connection, ids=ids))

    @cached_property
    def latest_ticks(self) -> Loader[int, Tick]:
        """The last tick of assets, by asset id; none where no engine has ticked."""
        return self._by(lambda connection, ids: latest_ticks(connection=connection, asset_ids=ids))

    @cached_property
    def day_stats(self) -> Loader[Asset, DayStats]:
        """The last 24 hours of assets."""

        async def read(connection: Connection, assets: list[Asset]) -> dict[Asset, DayStats]:
            days = await day_stats(connection=connection, asset_ids=[asset.id for asset in assets], at=self.at)
            untracked = [asset for asset in assets if asset.id not in days]
            if untracked:
                days |= await untracked_day(connection=connection, assets=untracked, at=self.at)
            return {asset: days[asset.id] for asset in assets}

        return self._by(read)

    @cached_property
    def oracle_statuses(self) -> Loader[int, OracleStatus]:
        """How the oracles of assets stand, by asset id; none where there is none."""
        return self._by(lambda connection, ids: oracle_statuses(connection=connection, asset_ids=ids))

    @cached_property
    def oracle_reports(self) -> Loader[int, Report]:
        """Reports of oracles by id, of whatever asset."""
        return self._by(lambda connection, ids: reports_by_id(connection=connection, report_ids=ids))

    @cached_property
    def oracle_report_pages(self) -> Loader[tuple[int, int, int | None], Page[Report]]:
        """Pages of assets' reports by asset id, how many, and the report after which they begin."""

        async def read(
            connection: Connection, keys: list[tuple[int, int, int | None]]
        ) -> dict[tuple[int, int, int | None], Page[Report]]:
            found: dict[tuple[int, int, int | None], Page[Report]] = {}
            for limit, after in dict.fromkeys(key[1:] for key in keys):
                ids = [key[0] for key in keys if key[1:] == (limit, after)]
                pages = await report_pages(connection=connection, asset_ids=ids, limit=limit, after=after)
                found |= {(asset_id, limit, after): page for asset_id, page in pages.items()}
            return found

        return self._by(read)

    @cached_property
    def evidence(self) -> Loader[int, list[Evidence]]:
        """The evidence of reports, by report id."""
        return self._by(lambda connection, ids: evidence_of(connection=connection, report_ids=ids))

    @cached_property
    def trades(self) -> Loader[tuple[int, int], Trade]:
        """Trades by asset id and seq."""
        return self._by(lambda connection, ids: reads.trades_by_seq(connection=connection, keys=ids))

    @cached_property
    def orders(self) -> Loader[int, Order]:
        """Orders by id, whosever."""
        return self._by(lambda connection, ids: reads.orders_by_id(connection=connection, ids=ids))

    @cached_property
    def fills(self) -> Loader[int, Trade]:
        """Trades by id, whosever."""
        return self._by(lambda connection, ids: reads.fills_by_id(connection=connection, ids=ids))

    @cached_property
    def fills_of_orders(self) -> Loader[int, list[Trade]]:
        """The trades of orders, by order id."""
        return self._by(lambda connection, ids: reads.fills_of_orders(connection=connection, order_ids=ids))

    @cached_property
    def holdings(self) -> Loader[tuple[int, int], reads.Holding]:
        """Positions with their assets, by account id and asset id."""
        return self._by(lambda connection, ids: reads.holdings_by_key(connection=connection, keys=ids))

    @cached_property
    def accounts(self) -> Loader[int, Account]:
        """Accounts by id."""
        return self._by(lambda connection, ids: accounts_by_id(connection=connection, ids=ids))

    @cached_property
    def cash(self) -> Loader[int, list[Cash]]:
        """Accounts' money by account id."""
        return self._by(lambda connection, ids: cash_of(connection=connection, account_ids=ids))

    @cached_property
    def entries(self) -> Loader[int, StatementEntry]:
        """Ledger entries of accounts by id, whosever."""
        return self._by(lambda connection, ids: entries_by_id(connection=connection, ids=ids))

    @cached_property
    def api_keys(self) -> Loader[int, ApiKey]:
        """API keys by id, whosever, revoked ones too."""
        return self._by(lambda connection, ids: api_keys_by_id(connection=connection, ids=ids))

    @cached_property
    def asset_requests(self) -> Loader[int, AssetRequest]:
        """Asset requests by id, whosever."""
        return self._by(lambda connection, ids: asset_requests_by_id(connection=connection, ids=ids))

    @cached_property
    def audit_entries(self) -> Loader[int, AuditEntry]:
        """Audit entries by id."""
        return self._by(lambda connection, ids: audit_entries_by_id(connection=connection, ids=ids))

    def _by(self, read: Callable[[Connection, list[K]], Awaitable[Mapping[K, V]]]) -> Loader[K, V]:
        async def fetch(keys: list[K]) -> Mapping[K, V]:
            async with self._database.acquire() as connection:
                return await read(connection, keys)

        return Loader(fetch)
