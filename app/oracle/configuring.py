"""Writing what an asset's oracle is configured to do. Who may, and what is allowed, is checked by those who call."""

from datetime import datetime

from app.db import Connection
from app.oracle.configuration import Configuration, SearchConfiguration, base_cadence, encode_configuration
from app.oracle.kinds import OracleMethod


async def store_configuration(
    *, connection: Connection, asset_id: int, configuration: Configuration, cadence_seconds: int | None
) -> datetime:
    """Give the asset this configuration, over what is there; the time that this was, and that a run is due at.

    `cadence_seconds`: what was asked for, None for the usual one. An override ends, and a run under way is overtaken.
    """
    is_search = isinstance(configuration, SearchConfiguration)
    at: datetime = await connection.fetchval(
        "INSERT INTO oracles AS o (asset_id, method, configuration, base_cadence_seconds, cadence_seconds, due_at)"
        " VALUES ($1, $2, $3, $4, $5, clock_timestamp()) ON CONFLICT (asset_id) DO UPDATE SET method = excluded.method,"
        " configuration = excluded.configuration, base_cadence_seconds = excluded.base_cadence_seconds,"
        " cadence_seconds = excluded.cadence_seconds, due_at = clock_timestamp(),"
        " version = o.version + (o.configuration IS NOT NULL)::int, run_id = o.run_id + 1, claimed_until = NULL,"
        " requested_at = NULL, failures = 0, last_error = NULL, override_id = NULL, held_until = NULL"
        " RETURNING due_at",
        asset_id,
        (OracleMethod.SEARCH_LLM if is_search else OracleMethod.FEED).value,
        encode_configuration(configuration),
        cadence_seconds,
        cadence_seconds or base_cadence(configuration),
    )
    return at
