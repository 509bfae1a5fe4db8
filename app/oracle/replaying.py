"""Judging a stored reading again, from what is stored alone: `megatron oracle replay REPORT`.

Nothing is asked of any provider and nothing is written. A stored text that is not what its hash says, inputs that were
changed and a verdict that was changed all show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from app.db import Connection, Database
from app.errors import isoformat
from app.money import RATE_UNIT, price_text, to_text
from app.oracle.cases import Case, SearchCase, content_hash, decode_case
from app.oracle.judgement import judge
from app.oracle.kinds import PERCENT_UNIT, OracleMethod, Verdict
from app.oracle.report_rows import Resolution
from app.oracle.reports import stored_summary
from app.settings import Settings
from app.text import showable

if TYPE_CHECKING:
    import asyncpg

SAME, DIFFERENT, IMPOSSIBLE = 0, 1, 2
"""Exit statuses: the verdict is the same; it is not, or what it rests on was changed; there is nothing to judge."""
SHOWN_CHARS_MAX: Final = 300
_RATE_DECIMALS: Final = len(str(RATE_UNIT)) - 1
_PERCENT_DECIMALS: Final = len(str(PERCENT_UNIT)) - 1


class NothingToJudge(Exception):  # noqa: N818 - an outcome
    """There is no such report, or nothing was judged for it. The message says which."""


class Changed(Exception):  # noqa: N818 - an outcome
    """What the verdict rests on is no longer what was judged. The message says what was changed, or is missing."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing that a verdict says, as it is stored and as it is judged again."""

    name: str
    stored: str
    judged: str

    @property
    def is_same(self) -> bool:
        """Whether both say so."""
        return self.stored == self.judged


@dataclass(frozen=True, slots=True)
class Replayed:
    """A report judged again."""

    report_id: int
    asset_id: int
    at: datetime
    method: OracleMethod
    compared: tuple[Compared, ...]

    @property
    def differences(self) -> tuple[Compared, ...]:
        """What is not the same; nothing, where all is well."""
        return tuple(each for each in self.compared if not each.is_same)


async def replay(*, connection: Connection, report_id: int) -> Replayed:
    """Judge a report again. Raises `NothingToJudge` and `Changed`."""
    row = await connection.fetchrow("SELECT * FROM oracle_logs WHERE id = $1", report_id)
    if row is None:
        raise NothingToJudge("there is no such report: it may be older than reports of feeds are kept")
    if row["inputs"] is None:
        raise NothingToJudge(f"the report {report_id} is an override by an admin: nothing was judged")
    evidence = await connection.fetch("SELECT * FROM oracle_evidence WHERE log_id = $1 ORDER BY ordinal", report_id)
    texts = await connection.fetch(
        "SELECT content_hash, text FROM oracle_texts WHERE content_hash = ANY($1::text[])",
        [each["content_hash"] for each in evidence],
    )
    try:
        case = decode_case(row["inputs"], {each["content_hash"]: each["text"] for each in texts})
        verdict = judge(case)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise Changed(f"the report {report_id} cannot be judged again: {error}") from error
    return Replayed(
        report_id=report_id,
        asset_id=row["asset_id"],
        at=row["at"],
        method=OracleMethod(row["method"]),
        compared=(*_compared(row, case, verdict), *_compared_evidence(evidence, case, verdict)),
    )


def render(replayed: Replayed) -> str:
    """For a terminal: a line for each thing that a verdict says, and the conclusion."""
    lines = [
        f"Report {replayed.report_id} ({replayed.method}) of asset {replayed.asset_id}, {isoformat(replayed.at)},"
        " judged again from what is stored:"
    ]
    for each in replayed.compared:
        if each.is_same:
            lines.append(f"  same     {each.name}: {_shown(each.stored)}")
        else:
            lines.append(f"  DIFFERS  {each.name}: stored {_shown(each.stored)}, judged again {_shown(each.judged)}")
    count = len(replayed.differences)
    lines.append(f"{count} of {len(replayed.compared)} differ." if count else "The verdict is the same.")
    return "\n".join(lines)


async def replay_command(settings: Settings, *, report_id: int) -> tuple[int, str]:
    """`megatron oracle replay`: the exit status, and what is to be said."""
    database = await Database.open(settings)
    try:
        async with database.snapshot() as connection:
            replayed = await replay(connection=connection, report_id=report_id)
    except NothingToJudge as error:
        return IMPOSSIBLE, f"megatron: {error}"
    except Changed as error:
        return DIFFERENT, f"megatron: {_shown(str(error))}"
    finally:
        await database.close()
    return DIFFERENT if replayed.differences else SAME, render(replayed)


def _compared(row: "asyncpg.Record", case: Case, verdict: Verdict) -> list[Compared]:
    compared = [
        Compared("outcome", row["verdict"], verdict.outcome),
        Compared("reasons", row["reasons"], " ".join(verdict.reasons)),
        Compared("F before", price_text(row["fundamental_before"]), price_text(case.fundamental)),
        Compared("price", _price(row["suggested_price"]), _price(verdict.price)),
        Compared("figure", str(row["figure"]), str(verdict.figure)),
        Compared("delta, percent", _percent(row["delta_percent"]), _percent(verdict.delta_percent)),
        Compared("confidence", _rate(row["confidence"]), _rate(verdict.confidence)),
        Compared("summary", str(row["summary"]), str(stored_summary(verdict.summary))),
    ]
    if row["resolution"] != Resolution.ACCEPTED:
        # What an admin takes moves F by so much as F is away from it then.
        compared.append(Compared("move of F", _rate(row["move"]), _rate(verdict.move)))
    return compared


def _compared_evidence(rows: "Sequence[asyncpg.Record]", case: Case, verdict: Verdict) -> list[Compared]:
    """The evidence that was judged comes first; what could not be had follows, and was not."""
    stored = [_piece(row["value"], row["excerpt"], row["content_hash"], counts=row["counts"]) for row in rows]
    compared = []
    for number, (value, quotation) in enumerate(zip(verdict.values, verdict.quotations, strict=True)):
        row = rows[number] if number < len(rows) else None
        words, hashed = (None, None) if row is None else (row["excerpt"], row["content_hash"])
        if isinstance(case, SearchCase):
            hashed = content_hash(case.pages[number].text)
        judged = _piece(value, words if quotation is None else quotation, hashed, counts=number in verdict.counted)
        name = f"evidence {number + 1}" + ("" if row is None else f", {row['url']}")
        compared.append(Compared(name, "nothing" if row is None else stored[number], judged))
    if not isinstance(case, SearchCase) and len(rows) != len(case.readings):
        compared.append(Compared("pieces of evidence", str(len(rows)), str(len(case.readings))))
    return compared


def _piece(value: str | None, words: str | None, hashed: str | None, *, counts: bool) -> str:
    return f"{'counts' if counts else 'does not count'}, {value} in {words!r} ({hashed})"


def _price(units: int | None) -> str:
    return "none" if units is None else price_text(units)


def _percent(units: int | None) -> str:
    return "none" if units is None else to_text(units, _PERCENT_DECIMALS)


def _rate(units: int | None) -> str:
    return "none" if units is None else to_text(units, _RATE_DECIMALS)


def _shown(text: str) -> str:
    line = showable(text)
    return line if len(line) <= SHOWN_CHARS_MAX else f"{line[:SHOWN_CHARS_MAX]}..."
