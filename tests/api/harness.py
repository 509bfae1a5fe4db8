"""Runs operations on the schema in this process, without HTTP: what a resolver answers, to whom, and by which SQL."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from asyncpg.connection import LoggedQuery
from graphql import ExecutionResult, graphql

from api.context import Context
from api.schema import schema
from app.accounts.principals import ANONYMOUS, Principal
from app.db import Connection, Database
from app.errors import Forbidden, Unauthenticated
from app.services import Services

Answer = dict[str, Any]


class CountingDatabase(Database):
    """The shared database, which writes down the statements that are run on connections taken from here."""

    def __init__(self, shared: Database) -> None:
        super().__init__(shared.pool)
        self.statements: list[str] = []

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        async with super().acquire() as connection:
            with connection.query_logger(self._note):
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        async with super().snapshot() as connection:
            with connection.query_logger(self._note):
                yield connection

    def _note(self, query: LoggedQuery) -> None:
        # A connection asks for the types it does not know once in its life; that is not the operation's.
        if "pg_catalog" not in query.query and "set_config" not in query.query:
            self.statements.append(query.query)


@dataclass
class Api:
    """An API in this process. `statements` are those that the last operation ran outside of transactions."""

    services: Services
    statements: list[str] = field(default_factory=list)

    async def run(
        self, query: str, variables: Mapping[str, object] | None = None, *, principal: Principal = ANONYMOUS
    ) -> ExecutionResult:
        """What the operation answers."""
        context = Context(principal=principal, services=self.services, request_id="a-request", client_ip="127.0.0.1")
        database = self.services.database
        assert isinstance(database, CountingDatabase)
        database.statements.clear()
        result = await graphql(schema._schema, query, variable_values=dict(variables or {}), context_value=context)
        self.statements = list(database.statements)
        return result

    async def data(
        self, query: str, variables: Mapping[str, object] | None = None, *, principal: Principal = ANONYMOUS
    ) -> Answer:
        """The data of an operation that has no errors."""
        result = await self.run(query, variables, principal=principal)
        if result.errors:
            raise result.errors[0].original_error or result.errors[0]
        assert result.data is not None
        return result.data

    async def refusal(
        self, query: str, variables: Mapping[str, object] | None = None, *, principal: Principal = ANONYMOUS
    ) -> tuple[str, str, str]:
        """The only error of an operation: where, of which kind, and its message."""
        result = await self.run(query, variables, principal=principal)
        assert result.errors is not None
        assert len(result.errors) == 1
        error = result.errors[0]
        return (
            ".".join(str(step) for step in error.path or ()),
            _kind(error.original_error, error.extensions),
            error.message,
        )


def _kind(original: Exception | None, extensions: Mapping[str, Any] | None) -> str:
    if isinstance(original, Unauthenticated):
        return "UNAUTHENTICATED"
    if isinstance(original, Forbidden):
        return "FORBIDDEN"
    return str((extensions or {}).get("code", type(original).__name__))
