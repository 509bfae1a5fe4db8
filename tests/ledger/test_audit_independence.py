"""The audit shares no code with what it audits."""

import ast
from pathlib import Path

import app.ledger

FOLDER = Path(app.ledger.__path__[0])


def imported(source: Path) -> set[str]:
    """Modules of this project that `source` imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name for name in names if name.partition(".")[0] in ("app", "models", "api", "workers", "migrations")}


def test_the_audit_imports_only_itself_and_the_connection() -> None:
    sources = sorted(FOLDER.glob("audit*.py"))
    assert len(sources) >= 6
    allowed = {"app.db"} | {f"app.ledger.{source.stem}" for source in sources}
    for source in sources:
        assert imported(source) <= allowed, f"{source.name} shares code with what it audits"
