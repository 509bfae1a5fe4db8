"""`megatron oracle replay`: the same verdict from what is stored alone, and whatever was changed since shows."""

import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from dataclasses import replace

import pytest

from app.db import Database
from app.oracle.cases import Pending, UsedEvidence
from app.oracle.kinds import Effect, OracleOutcome, Reason
from app.oracle.overrides import set_override
from app.oracle.quarantine import resolve_quarantine
from app.oracle.replaying import Changed, NothingToJudge, Replayed, render, replay
from app.oracle.report_rows import Report
from tests.conftest import ROOT
from tests.oracle.making import (
    AT,
    FEEDS,
    UNIT,
    feed_case,
    feed_draft,
    new_oracle,
    recorded,
    search_case,
    search_draft,
)
from tests.pricing.running import open_database


async def replayed(database: Database, report_id: int) -> Replayed:
    async with database.snapshot() as connection:
        return await replay(connection=connection, report_id=report_id)


async def searched(database: Database, price: str = "1.05", **values: object) -> Report:
    """The report of a search."""
    claim = await new_oracle(database)
    (report,) = await recorded(database, search_draft(claim, search_case(price, **values)))  # type: ignore[arg-type]
    return report


async def change(database: Database, report: Report, place: tuple[str, str], *, pattern: str, replacement: str) -> None:
    """As somebody would who may do anything: what is stored for a report says something else."""
    table, column = place
    key = {
        "oracle_logs": "id = $3",
        "oracle_evidence": "log_id = $3",
        "oracle_texts": "content_hash IN (SELECT content_hash FROM oracle_evidence WHERE log_id = $3)",
    }[table]
    async with database.acquire() as connection:
        if table == "oracle_texts":
            await connection.execute("ALTER TABLE oracle_texts DISABLE TRIGGER USER")
            await connection.execute("ALTER TABLE oracle_texts DROP CONSTRAINT oracle_texts_content_hash_check")
        status = await connection.execute(
            f"UPDATE {table} SET {column} = replace({column}, $1, $2) WHERE {key}", pattern, replacement, report.id
        )
        assert status != "UPDATE 0"


USED = UsedEvidence("alpha.example", "1.05", "0" * 64, "alpha.example reports that wheat traded at 1.05 USD today.")


@pytest.mark.parametrize(
    ("price", "values", "expected"),
    [
        ("1.05", {}, (OracleOutcome.ACCEPTED, (), Effect.MOVE)),
        ("1.05", {"is_first": True}, (OracleOutcome.ACCEPTED, (), Effect.SET)),
        ("1.5", {}, (OracleOutcome.QUARANTINED, (Reason.DELTA_TOO_LARGE,), Effect.NONE)),
        ("1.05", {"domains": ("alpha.example",)}, (OracleOutcome.REJECTED, (Reason.TOO_FEW_SOURCES,), Effect.NONE)),
        (
            "1.05",
            {"used": (USED, replace(USED, source="beta.example", quotation=USED.quotation.replace("alpha", "beta")))},
            (OracleOutcome.REJECTED, (Reason.REPEAT,), Effect.REFRESH),
        ),
        (
            "1.5",
            {"pending": (Pending(7, 15 * UNIT // 10, "1.5", (replace(USED, source="zeta.example"),)),)},
            (OracleOutcome.ACCEPTED, (), Effect.MOVE),  # it confirms, and moves F by 10 percent: exactly the cap
        ),
    ],
)
async def test_a_search_is_judged_the_same_again(
    database: Database,
    price: str,
    values: dict[str, object],
    expected: tuple[OracleOutcome, tuple[Reason, ...], Effect],
) -> None:
    claim = await new_oracle(database)
    draft = search_draft(claim, search_case(price, **values))  # type: ignore[arg-type]
    assert (draft.verdict.outcome, draft.verdict.reasons, draft.verdict.effect) == expected
    (report,) = await recorded(database, draft)
    again = await replayed(database, report.id)
    assert again.differences == ()
    assert [each.name for each in again.compared][:9] == [
        "outcome", "reasons", "F before", "price", "figure", "delta, percent", "confidence", "summary", "move of F",
    ]  # fmt: skip
    assert [each.name for each in again.compared][9:] == [
        f"evidence {number}, {evidence.url}" for number, evidence in enumerate(draft.evidence, 1)
    ]


@pytest.mark.parametrize("value", ["1.05", "1.5", None])
async def test_a_feed_is_judged_the_same_again(database: Database, value: str | None) -> None:
    claim = await new_oracle(database, configuration=FEEDS)
    (report,) = await recorded(database, feed_draft(claim, feed_case(value)))
    assert (await replayed(database, report.id)).differences == ()


async def test_what_an_admin_decided_later_is_no_difference(database: Database) -> None:
    for accept in (True, False):
        report = await searched(database, "1.5")
        async with database.transaction() as unit:
            await resolve_quarantine(unit=unit, report_id=report.id, accept=accept, reason="Checked.", by="ada")
        assert (await replayed(database, report.id)).differences == ()


@pytest.mark.parametrize(
    ("place", "changed", "names"),
    [
        (("oracle_logs", "inputs"), ('"fundamental":1000000000000', '"fundamental":1010000000000'), {"F before"}),
        (("oracle_logs", "inputs"), ('"min_sources":2', '"min_sources":3'), {"outcome", "reasons", "price", "figure"}),
        (
            ("oracle_logs", "inputs"),
            ('"max_moves":250000000', '"max_moves":9999999'),
            {"outcome", "reasons", "move of F"},
        ),
        (("oracle_logs", "figure"), ("1.05", "1.06"), {"figure"}),
        (("oracle_logs", "summary"), ("1.05", "1.06"), {"summary"}),
        (("oracle_evidence", "value"), ("1.05", "1.06"), {"evidence 1, https://www.alpha.example/wheat"}),
        (("oracle_evidence", "excerpt"), ("traded", "was traded"), {"evidence 2, https://www.beta.example/wheat"}),
    ],
)
async def test_what_was_changed_shows(
    database: Database, place: tuple[str, str], changed: tuple[str, str], names: set[str]
) -> None:
    report = await searched(database)
    await change(database, report, place, pattern=changed[0], replacement=changed[1])
    again = await replayed(database, report.id)
    assert names - {each.name for each in again.differences} == set()
    assert "differ." in render(again)


@pytest.mark.parametrize(
    ("place", "changed", "told"),
    [
        (
            ("oracle_texts", "text"),
            ("1.05", "1.06"),
            r"the text of https://www\.alpha\.example/wheat was changed: its hash",
        ),
        (("oracle_texts", "content_hash"), ("a", "b"), r"the text of https://www\.alpha\.example/wheat is missing"),
        (
            ("oracle_logs", "inputs"),
            ('"policy":', '"policy":9'),
            r"it was judged by policy 9\d, and only policy \d+ is known",
        ),
        (("oracle_logs", "inputs"), ("{", "["), "cannot be judged again: "),
        (("oracle_logs", "inputs"), ('"fundamental":', '"foundation":'), "no case of the oracle"),
    ],
)
async def test_what_the_verdict_rests_on_was_changed(
    fresh_database_url: str, place: tuple[str, str], changed: tuple[str, str], told: str
) -> None:
    async with open_database(fresh_database_url) as database:
        report = await searched(database)
        await change(database, report, place, pattern=changed[0], replacement=changed[1])
        with pytest.raises(Changed, match=told):
            await replayed(database, report.id)


async def test_there_may_be_nothing_to_judge(database: Database) -> None:
    claim = await new_oracle(database)
    async with database.transaction() as unit:
        override = await set_override(
            unit=unit, asset_id=claim.asset_id, fundamental=UNIT, reason="Set.", expires_at=None, by="ada"
        )
    with pytest.raises(NothingToJudge, match=f"the report {override} is an override by an admin"):
        await replayed(database, override)
    with pytest.raises(NothingToJudge, match="there is no such report"):
        await replayed(database, 0)


async def test_a_hostile_text_does_not_reach_the_terminal_as_it_is(database: Database) -> None:
    report = await searched(database)
    await change(database, report, ("oracle_logs", "summary"), pattern="Wheat", replacement="\x1b[2J\u202eWheat")
    said = render(await replayed(database, report.id))
    assert "\x1b" not in said
    assert "\\u001b[2J\\u202eWheat" in said


# ------------------------------------------------------------------------------------------------ the command
def command(url: str, report: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "oracle", "replay", report],
        cwd=ROOT,
        env={**os.environ, "MEGATRON_ENV": "development", "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_command_prints_both_and_tells_by_its_status(fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as database:
        report = await searched(database)
        node_id = urlsafe_b64encode(f"OracleReport:{report.id}".encode()).decode().rstrip("=")

        ended = command(fresh_database_url, node_id)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith(f"Report {report.id} (SEARCH_LLM) of asset {report.asset_id}, 2")
        assert "\n  same     price: 1.05" in ended.stdout
        assert ended.stdout.endswith("\nThe verdict is the same.\n")

        await change(database, report, ("oracle_logs", "figure"), pattern="1.05", replacement="1.06")
        ended = command(fresh_database_url, str(report.id))
        assert (ended.returncode, ended.stderr) == (1, "")
        assert "\n  DIFFERS  figure: stored 1.06, judged again 1.05\n" in ended.stdout
        assert ended.stdout.endswith("\n1 of 11 differ.\n")

        await change(database, report, ("oracle_texts", "text"), pattern="1.05", replacement="1.06")
        ended = command(fresh_database_url, str(report.id))
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f"megatron: the report {report.id} cannot be judged again: the text of https://")

    ended = command(fresh_database_url, "QXNzZXQ6MQ")  # an asset's id
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "megatron: there is no such report: it may be older than reports of feeds are kept\n"


async def test_times_are_stored_to_the_microsecond(database: Database) -> None:
    report = await searched(database)
    async with database.acquire() as connection:
        inputs = await connection.fetchval("SELECT inputs FROM oracle_logs WHERE id = $1", report.id)
    assert AT.isoformat() in inputs
