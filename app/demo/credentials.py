"""Who the demo traders are between runs: e-mails, passwords and session tokens in a file that its owner alone may read.

Never logged, never sent anywhere but to the API's own signUp and logIn.
"""

import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

FILE_NAME: Final = "demo-traders.json"


@dataclass(slots=True)
class Credentials:
    """One trader's. `token`: of the session it had last."""

    email: str
    password: str
    token: str | None = None
    signed_up: bool = False

    def __repr__(self) -> str:
        return f"Credentials(email={self.email!r})"


def fresh(name: str) -> Credentials:
    """New credentials for the trader `name`; the e-mail is nobody's (RFC 2606) and new each time."""
    return Credentials(email=f"{name}-{secrets.token_hex(4)}@demo-traders.example", password=secrets.token_urlsafe(24))


class CredentialFile:
    """The traders' credentials by name, kept in `data_dir`. Each change is on disk before the call returns."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE_NAME
        self._known = self._load()

    def _load(self) -> dict[str, Credentials]:
        try:
            stored = orjson.loads(self.path.read_bytes())
            return {name: Credentials(**values) for name, values in stored.items()}
        except FileNotFoundError:
            return {}
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            # A torn or foreign file: its accounts are lost to us, and new ones do as well.
            return {}

    def of(self, name: str) -> Credentials:
        """The trader's credentials, made and stored at its first start."""
        if name not in self._known:
            self._known[name] = fresh(name)
            self.save()
        return self._known[name]

    def replace(self, name: str) -> Credentials:
        """New credentials where the old ones turned out to be worth nothing."""
        self._known.pop(name, None)
        return self.of(name)

    def save(self) -> None:
        """Write all of them, whole or not at all, mode 0600."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self.path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(orjson.dumps({name: asdict(one) for name, one in self._known.items()}))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
