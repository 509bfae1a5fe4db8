"""A password hasher that costs next to nothing."""

from collections.abc import Iterator

import pytest

from app.accounts.passwords import PasswordHasher
from tests.accounts.people import CHEAP


@pytest.fixture(scope="session")
def hasher() -> Iterator[PasswordHasher]:
    made = PasswordHasher(concurrency=2, parameters=CHEAP)
    yield made
    made.close()
