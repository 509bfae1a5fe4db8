"""The traders' credentials: kept between runs, readable by their owner only, and never shown."""

import stat
from pathlib import Path

import orjson
import pytest

from app.demo.credentials import CredentialFile, Credentials


def test_credentials_are_made_once_and_kept(tmp_path: Path) -> None:
    first = CredentialFile(tmp_path)
    one = first.of("noise-1")
    assert one.email.startswith("noise-1-")
    assert one.email.endswith("@demo-traders.example")
    assert len(one.password) == 32
    assert CredentialFile(tmp_path).of("noise-1") == one
    assert first.of("noise-2").password != one.password


def test_sessions_are_kept_once_saved(tmp_path: Path) -> None:
    known = CredentialFile(tmp_path)
    one = known.of("noise-1")
    one.token, one.signed_up = "t-1", True
    known.save()
    assert CredentialFile(tmp_path).of("noise-1") == Credentials(one.email, one.password, "t-1", signed_up=True)


def test_only_the_owner_may_read_the_file_and_a_folder_made_for_it(tmp_path: Path) -> None:
    known = CredentialFile(tmp_path / "data")
    known.of("noise-1")
    assert stat.S_IMODE(known.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(known.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in known.path.parent.iterdir()] == ["demo-traders.json"]


def test_a_loosened_file_is_tight_again_after_the_next_change(tmp_path: Path) -> None:
    known = CredentialFile(tmp_path)
    known.of("noise-1")
    known.path.chmod(0o644)
    known.of("noise-2")
    assert stat.S_IMODE(known.path.stat().st_mode) == 0o600


def test_replacing_gives_a_new_e_mail_and_leaves_the_others(tmp_path: Path) -> None:
    known = CredentialFile(tmp_path)
    one, two = known.of("noise-1"), known.of("noise-2")
    new = known.replace("noise-1")
    assert new.email != one.email
    assert set(orjson.loads(known.path.read_bytes())) == {"noise-1", "noise-2"}
    assert CredentialFile(tmp_path).of("noise-2") == two


@pytest.mark.parametrize("content", [b"", b'{"noise-1": {"email', b"[]", b'{"noise-1": 3}', b'{"noise-1": {"x": 1}}'])
def test_a_torn_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "demo-traders.json").write_bytes(content)
    one = CredentialFile(tmp_path).of("noise-1")
    assert CredentialFile(tmp_path).of("noise-1") == one


def test_passwords_and_tokens_are_not_shown(tmp_path: Path) -> None:
    one = CredentialFile(tmp_path).of("noise-1")
    one.token = "t-1"
    assert repr(one) == f"Credentials(email='{one.email}')"
