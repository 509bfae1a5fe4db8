"""The application's routes, without servers behind them, and the server's first and last moments."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.local.postgres import EmbeddedPostgres
from app.local.valkey import EmbeddedValkey
from app.main import Application
from tests.api.edge import Edge, stub_services
from tests.conftest import ROOT, LiveApi, free_port, run_api


def application(dist: Path | None = None, **settings: object) -> Edge:
    services = stub_services(settings=settings)
    return Edge(Application(services, dist=dist), services)


# ------------------------------------------------------------------------------------------------ routes


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "LOCALHOST:1", "[::1]:8000", "[::1]"])
async def test_requests_for_this_host_are_served(host: str) -> None:
    reply = await application().post("{ __typename }", host=host)

    assert (reply.status, reply.json) == (200, {"data": {"__typename": "Query"}})


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1@evil", "localhost:8000:9", "::1"]
)
async def test_requests_for_other_hosts_are_421(host: str) -> None:
    edge = application()
    edge.defaults.clear()

    reply = await edge.post("{ __typename }", host=host)

    assert (reply.status, reply.code) == (421, "MISDIRECTED_REQUEST")
    assert (
        reply.error["message"] == f"The host '{host}' is not served here: MEGATRON_ALLOWED_HOSTS lists those that are."
    )
    assert (await edge.post("{ __typename }")).status == 421


async def test_every_host_is_served_where_the_setting_says_so() -> None:
    reply = await application(allowed_hosts=["*"]).post("{ __typename }", host="any.example")

    assert reply.status == 200


async def test_a_probe_needs_no_host() -> None:
    edge = application()
    edge.defaults.clear()

    reply = await edge.send("GET", path="/healthz")

    assert (reply.status, reply.json) == (200, {"status": "ok"})


async def test_a_process_without_its_database_is_not_ready() -> None:
    reply = await application().send("GET", path="/readyz")

    assert reply.status == 503
    assert reply.json["status"] == "not ready"
    assert [(each["name"], each["ok"]) for each in reply.json["components"]] == [("database", False), ("redis", False)]


@pytest.mark.parametrize(
    ("client", "forwarded", "trusted", "status"),
    [
        ("127.0.0.1", None, [], 200),
        ("::1", None, [], 200),
        ("10.1.2.3", None, [], 403),
        ("10.1.2.3", None, ["10.0.0.0/8"], 200),
        ("127.0.0.1", "198.51.100.1", [], 403),
        ("10.1.2.3", "198.51.100.1", ["10.0.0.0/8"], 403),
    ],
)
async def test_metrics_are_for_this_machine_and_trusted_networks(
    client: str, forwarded: str | None, trusted: list[str], status: int
) -> None:
    edge = application(trusted_proxies=trusted)
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}

    reply = await edge.send("GET", path="/metrics", client=client, headers=headers)

    assert reply.status == status
    assert (b"megatron_graphql_documents 0.0" in reply.body) is (status == 200)


async def test_browsers_get_the_playground_and_programs_the_api_at_one_address(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html>the playground</html>")
    edge = application(tmp_path)

    page = await edge.send("GET", headers={"accept": "text/html,*/*;q=0.8"}, query_string=b"query=%7B__typename%7D")
    answer = await edge.send("GET", headers={"accept": "*/*"}, query_string=b"query=%7B__typename%7D")
    home = await edge.send("GET", path="/")

    assert (page.status, page.body) == (200, b"<html>the playground</html>")
    assert answer.json == {"data": {"__typename": "Query"}}
    assert (home.status, home.headers["location"]) == (307, "/graphql")
    assert (await edge.send("GET", path="/nosuch")).status == 404


# ------------------------------------------------------------------------------------------------ the process


def start(**environment: str) -> "subprocess.CompletedProcess[str]":
    """`megatron api`, which is expected to give up at once."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "api"],
        cwd=ROOT,
        env={**os.environ, "MEGATRON_ENV": "development", "MEGATRON_LOG_LEVEL": "ERROR", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_taken_port_is_one_clear_line(live_api: LiveApi, postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    port = live_api.url.rsplit(":", 1)[1]

    ended = start(MEGATRON_PORT=port, DATABASE_URL=postgres.dsn_of("postgres"), REDIS_URL=valkey.url)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"megatron: 127.0.0.1:{port} is taken: stop what listens there, or set MEGATRON_PORT to another port\n"
    )


def test_a_database_that_is_not_there_or_not_migrated_is_one_clear_line(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey
) -> None:
    port = str(free_port())
    nowhere = start(MEGATRON_PORT=port, DATABASE_URL="postgresql://127.0.0.1:1/x", REDIS_URL=valkey.url)
    empty = start(MEGATRON_PORT=port, DATABASE_URL=postgres.dsn_of("template1"), REDIS_URL=valkey.url)
    unset = start(MEGATRON_PORT=port, DATABASE_URL="", REDIS_URL=valkey.url)

    assert [each.returncode for each in (nowhere, empty, unset)] == [1, 1, 1]
    assert nowhere.stderr.startswith("megatron: cannot reach the database: ")
    assert empty.stderr == "megatron: the database has no tables yet: run `megatron migrate` first\n"
    assert unset.stderr.startswith("megatron: DATABASE_URL is not set")
    assert [each.stderr.count("\n") for each in (nowhere, empty, unset)] == [1, 1, 1]


def test_limits_without_a_redis_to_count_in_are_one_clear_line(database_url: str) -> None:
    without = start(MEGATRON_PORT=str(free_port()), DATABASE_URL=database_url, REDIS_URL="")
    wrong = start(MEGATRON_PORT=str(free_port()), DATABASE_URL=database_url, REDIS_URL="http://x")

    assert (without.returncode, wrong.returncode) == (1, 1)
    assert without.stderr.startswith("megatron: REDIS_URL is not set, and rate limits are counted there")
    assert wrong.stderr == (
        "megatron: REDIS_URL must begin with redis://, rediss:// or unix://; it begins with 'http'\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_told_to_stop_ends_well(number: int, fresh_database_url: str, valkey: EmbeddedValkey) -> None:
    with run_api(database_url=fresh_database_url, redis_url=valkey.url) as api:
        api.process.send_signal(number)

        assert api.process.wait(timeout=10) == 0
