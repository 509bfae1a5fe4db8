"""Who a request comes from, once its token has been looked up. Values only: what each may do is decided elsewhere."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias


class Scope(StrEnum):
    """What an API key may do. A session has all scopes."""

    READ = "READ"
    TRADE = "TRADE"
    WITHDRAW = "WITHDRAW"


ALL_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Credential:
    """The row that a token belongs to: a session's id or an API key's."""

    kind: Literal["session", "api_key"]
    id: int


@dataclass(frozen=True, slots=True)
class Anonymous:
    """A request without a token."""


@dataclass(frozen=True, slots=True)
class AccountPrincipal:
    """A customer, by a session or an API key."""

    account_id: int
    credential: Credential
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class AdminPrincipal:
    """An admin, by a session."""

    name: str
    session_id: int


Principal: TypeAlias = Anonymous | AccountPrincipal | AdminPrincipal

ANONYMOUS: Final = Anonymous()
