"""`.env.example` tells of every setting, and of nothing else."""

import re

from pydantic import AliasChoices

from app.settings import Settings
from tests.local.market import PROJECT

EXAMPLE = (PROJECT / ".env.example").read_text()


def names_of_settings() -> dict[str, list[str]]:
    """Each setting's name in the environment, and its aliases."""
    found = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        choices = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [alias or ""]
        first, *others = [str(choice) for choice in choices if choice] or [f"MEGATRON_{name.upper()}"]
        found[first] = others
    return found


def test_every_setting_has_a_line_and_every_alias_is_named() -> None:
    keys = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", EXAMPLE, re.MULTILINE)
    assert sorted(keys) == sorted(names_of_settings())
    assert [alias for aliases in names_of_settings().values() for alias in aliases if alias not in EXAMPLE] == []


def test_every_line_is_off_and_follows_a_comment() -> None:
    lines = EXAMPLE.splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    blocks = EXAMPLE.split("\n\n")
    assert [block for block in blocks if re.match(r"#[A-Z_]+=", block)] == []
