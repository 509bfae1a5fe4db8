"""The `megatron` command: any part of the platform, from the same code. A composition root: may import everything."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.settings import Environment, Settings

Command: TypeAlias = "Callable[[Settings, argparse.Namespace], int]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    parsed = _parser().parse_args(arguments)
    run: Command = parsed.run
    if run is _dev:
        os.environ["MEGATRON_ENV"] = Environment.DEVELOPMENT.value
    try:
        settings = Settings()
    except SettingsError as error:
        print(f"megatron: settings: {error}", file=sys.stderr)
        sys.exit(2)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"])) or "together"
            print(f"megatron: settings, {name}: {problem['msg']}", file=sys.stderr)
        sys.exit(2)
    is_without = run in (_dev, _watch) or (run is _demo and parsed.what == "stand-in")
    sys.exit(run(settings, parsed) if is_without else _with_database(run, settings, parsed))


def _with_database(run: Command, settings: Settings, parsed: argparse.Namespace) -> int:
    """Run a command that needs the database, and say in a line when it cannot be had."""
    import asyncpg

    from app.db import DatabaseMisconfigured
    from app.telemetry import configure_logging

    configure_logging(settings.log_level)

    try:
        return run(settings, parsed)
    except DatabaseMisconfigured as error:
        print(f"megatron: {error}", file=sys.stderr)
    except (
        OSError,
        asyncpg.CannotConnectNowError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.PostgresConnectionError,
        asyncpg.TooManyConnectionsError,
    ) as error:
        print(f"megatron: cannot reach the database: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="megatron", description="A market for synthetic stocks and indexes.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, help_text: str, run: Command) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(run=run)
        return command

    add("api", "serve the GraphQL API", _api)
    add("dev", "run the whole market on this machine, with its own PostgreSQL and Valkey", _dev)
    add("migrate", "bring the database's schema up to date", _migrate)
    add("audit", "recompute every invariant from the ledger's entries; exit status 1 if anything differs", _audit)
    add("schema", "print the GraphQL schema", _schema)
    worker = add("worker", "run a background worker", _worker)
    worker.add_argument(
        "what",
        choices=("price", "oracle"),
        help="price: make ticks and candles of trades and readings; oracle: make readings of sources",
    )
    oracle = add("oracle", "judge a stored reading of an oracle again; exit status 1 if the verdict differs", _oracle)
    oracle.add_argument("what", choices=("replay",), help="replay: from the stored evidence alone, offline")
    oracle.add_argument("report", metavar="REPORT", help="the report's id, as the API gives it, or its number")
    demo = add("demo", "the demo market", _demo)
    demo.add_argument(
        "what",
        choices=("seed", "run", "stand-in"),
        help="seed: make its assets and oracles; run: trade; stand-in: serve search, language model and pages locally",
    )
    demo.add_argument("--url", default="http://127.0.0.1:8000/graphql", help="the API that the traders use")
    demo.add_argument("--port", type=int, default=0, help="the stand-in's, on loopback; any free one if left out")
    watch = add("watch", "a live board of the market in this terminal", _watch)
    watch.add_argument("--url", default="http://127.0.0.1:8000", help="the market to watch")
    watch.add_argument("--symbols", nargs="+", metavar="SYMBOL", help="the assets to watch; all of them if left out")
    watch.add_argument("--once", action="store_true", help="print one board and end")
    watch.add_argument("--svg", metavar="FILE", help="draw one board into an SVG file and end")
    add("hash-password", "read a password from standard input and print its Argon2id hash", _hash_password)
    return parser


def _api(settings: Settings, _: argparse.Namespace) -> int:
    from app.main import serve

    return serve(settings)


def _dev(settings: Settings, _: argparse.Namespace) -> int:
    from app.local.supervisor import main as supervise

    return supervise(settings)


def _migrate(settings: Settings, _: argparse.Namespace) -> int:
    from app.db import migrate

    asyncio.run(migrate(settings))
    return 0


def _audit(settings: Settings, _: argparse.Namespace) -> int:
    from app.db import Database
    from app.ledger.audit import audit, render

    async def run() -> int:
        database = await Database.open(settings)
        try:
            async with database.snapshot() as connection:
                await connection.execute("SET LOCAL statement_timeout = 0")
                report = await audit(connection=connection)
        finally:
            await database.close()
        print(render(report))
        return 0 if report.ok else 1

    return asyncio.run(run())


def _schema(_settings: Settings, _: argparse.Namespace) -> int:
    from api.schema import export

    print(export(), end="")
    return 0


def _worker(settings: Settings, parsed: argparse.Namespace) -> int:
    if parsed.what == "oracle":
        from workers.oracle import serve
    else:
        from workers.price import serve

    return serve(settings)


def _oracle(settings: Settings, parsed: argparse.Namespace) -> int:
    from api.node_ids import key_or_nothing
    from app.oracle.replaying import replay_command

    text: str = parsed.report
    is_number = text.isascii() and text.isdecimal() and len(text) <= 18
    report_id = int(text) if is_number else key_or_nothing(text, "OracleReport")
    status, said = asyncio.run(replay_command(settings, report_id=report_id))
    print(said, file=sys.stderr if said.startswith("megatron:") else sys.stdout)
    return status


def _demo(settings: Settings, parsed: argparse.Namespace) -> int:
    if parsed.what == "seed":
        from app.demo.seed import seed

        asyncio.run(seed(settings))
    elif parsed.what == "stand-in":
        from app.demo.stand_in.server import serve

        return serve(settings, port=parsed.port)
    else:
        from app.demo.run import main_run

        asyncio.run(main_run(settings, parsed.url))
    return 0


def _watch(_settings: Settings, parsed: argparse.Namespace) -> int:
    from pathlib import Path

    from app.watch.run import Wanted, main

    svg = None if parsed.svg is None else Path(parsed.svg)
    return main(Wanted(parsed.url, parsed.symbols and tuple(parsed.symbols), once=parsed.once, svg=svg))


def _hash_password(_settings: Settings, _: argparse.Namespace) -> int:
    import getpass

    from argon2 import PasswordHasher

    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < 12:
        print("megatron: an admin's password needs at least 12 characters", file=sys.stderr)
        return 1
    print(PasswordHasher().hash(password))
    return 0


if __name__ == "__main__":
    main()
