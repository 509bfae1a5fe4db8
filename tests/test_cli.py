"""The `megatron` command, misconfigured: one line on standard error that says what is wrong, and no secret in it."""

import os
import subprocess
import sys

import pytest

from app.local.postgres import EmbeddedPostgres
from app.local.valkey import EmbeddedValkey
from tests.conftest import ADMIN_PASSWORD_HASH, ROOT, free_port

SECRET = "s3cret-of-nobody"
HASH_NEEDED = "must be a bcrypt or Argon2id hash: `megatron hash-password` makes one"


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`megatron` with a command that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *command],
        cwd=ROOT,
        env={**os.environ, "MEGATRON_ENV": "development", "MEGATRON_LOG_LEVEL": "ERROR", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def complaint(ended: "subprocess.CompletedProcess[str]", *, status: int) -> str:
    """The one line that it ended with."""
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr.count("\n") == 1
    assert SECRET not in ended.stderr
    return ended.stderr.removeprefix("megatron: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "MEGATRON_ADMINS",
            f'{{"ada": "{SECRET}',
            'settings: error parsing value for field "admins" from source "EnvSettingsSource"',
        ),
        ("MEGATRON_ADMINS", f'["{SECRET}"]', "settings, admins: Input should be a valid dictionary"),
        ("MEGATRON_ADMINS", '{"ada": 5}', "settings, admins.ada: Input should be a valid string"),
        ("MEGATRON_ADMINS", f'{{"ada": "{SECRET}"}}', f"settings, admins: Value error, ada's {HASH_NEEDED}"),
        ("MEGATRON_ADMIN_PASSWORD_HASH", SECRET, f"settings, admin_password_hash: Value error, {HASH_NEEDED}"),
        (
            "MEGATRON_ADMIN_PASSWORD_HASH",
            f"$argon2i$v=19$m=65536,t=3,p=4${SECRET}",
            f"settings, admin_password_hash: Value error, {HASH_NEEDED}",
        ),
        (
            "MEGATRON_LOG_LEVEL",
            "foo",
            "settings, log_level: Value error, must be DEBUG, INFO, WARNING or ERROR; got 'foo'",
        ),
    ],
)
@pytest.mark.parametrize("command", ["api", "migrate"])
def test_a_setting_that_cannot_be_used_is_one_line_that_names_it(
    command: str, name: str, value: str, said: str
) -> None:
    assert complaint(run(command, **{name: value}), status=2) == said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://u:{SECRET}@localhost:port/x", "DATABASE_URL has a port that is no number from 0 to 65535"),
        (f"postgresql://u:{SECRET}@localhost:65536/x", "DATABASE_URL has a port that is no number from 0 to 65535"),
        (
            f"postgresql://u:{SECRET}@localhost/x?port=99999",
            "DATABASE_URL has a port that is no number from 0 to 65535",
        ),
        (f"postgresql://u:{SECRET}@localhost/x?port=-1", "DATABASE_URL has a port that is no number from 0 to 65535"),
        (
            f"postgresql://u:{SECRET}[@localhost/x",
            "DATABASE_URL is no address: a password in it must have characters such as [ ] / # ? @ percent-encoded",
        ),
        (f"mysql://u:{SECRET}@localhost/x", "DATABASE_URL must begin with postgresql://; it begins with 'mysql'"),
    ],
)
@pytest.mark.parametrize("command", ["api", "migrate", "audit"])
def test_a_database_url_that_cannot_be_read_is_one_line_without_its_password(
    valkey: EmbeddedValkey, command: str, url: str, said: str
) -> None:
    ended = run(command, DATABASE_URL=url, REDIS_URL=valkey.url, MEGATRON_PORT=str(free_port()))

    assert complaint(ended, status=1) == said


@pytest.mark.parametrize("command", ["api", "migrate", "audit"])
def test_a_database_that_does_not_exist_is_one_line(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, command: str
) -> None:
    ended = run(command, DATABASE_URL=postgres.dsn_of("nosuch"), REDIS_URL=valkey.url, MEGATRON_PORT=str(free_port()))

    assert complaint(ended, status=1) == 'cannot reach the database: database "nosuch" does not exist'


@pytest.mark.parametrize("level", ["debug", "Info", "WARNING"])
def test_a_usable_setting_in_any_case_is_taken(level: str) -> None:
    ended = run("schema", MEGATRON_LOG_LEVEL=level, MEGATRON_ADMINS=f'{{"ada": "{ADMIN_PASSWORD_HASH}"}}')

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (ROOT / "schema.graphql").read_text(encoding="utf-8")
