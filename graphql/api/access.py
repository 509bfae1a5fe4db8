"""Who may ask for what: the rules, and the pass over the built schema that puts them in front of resolvers.

Default deny: `access_table` lists every field of every object type. A field that is missing there, one that leads to
owned objects and is listed as open, or an entry for a field that is gone, fails the building of the schema. Whose an
object is, is decided where objects are looked up; here only who asks.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeAlias

from graphql import (
    GraphQLField,
    GraphQLFieldResolver,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    default_field_resolver,
    get_named_type,
)

from api.context import Context
from app.accounts.principals import AccountPrincipal, AdminPrincipal, Anonymous, Principal, Scope
from app.errors import Forbidden, Unauthenticated

Gate: TypeAlias = Callable[[Principal], bool]
"""Whether the field is answered (True) or null (False); raises `Unauthenticated` or `Forbidden`."""


class Audience(Enum):
    """Who a type's objects are for."""

    EVERYBODY = "EVERYBODY"
    ITS_OWNER = "ITS_OWNER"
    """Reached only through gates, or through fields that look for the owner themselves."""


class Rule(Enum):
    """What stands in front of a field."""

    OPEN = "OPEN"
    """Whoever holds the object may read it."""
    CHECKS_ITSELF = "CHECKS_ITSELF"
    """The resolver decides by object: what it may not show is null."""
    FRESH_SESSION = "FRESH_SESSION"
    """Shows the account that this very request has proven to be the caller's."""
    VIEWER = "VIEWER"
    """Null for anonymous callers and admins; an account needs READ."""
    READ = "READ"
    """An account with READ."""
    TRADE = "TRADE"
    """An account with TRADE."""
    ACCOUNT_SESSION = "ACCOUNT_SESSION"
    """An account's session, never a key."""
    ANY_SESSION = "ANY_SESSION"
    """A session, an account's or an admin's, never a key."""
    ADMIN = "ADMIN"
    """An admin."""
    ADMIN_OR_NULL = "ADMIN_OR_NULL"
    """Null for everybody but admins."""


class AccessTableIsWrong(Exception):  # noqa: N818 - says what it is
    """The table and the schema do not fit; the message names the fields."""


def account_of(principal: Principal) -> AccountPrincipal:
    """The account that asks. Raises `Unauthenticated` without one, `Forbidden` for an admin."""
    if isinstance(principal, AccountPrincipal):
        return principal
    if isinstance(principal, Anonymous):
        raise Unauthenticated('Log in first, and send the token as "Authorization: Bearer ...".')
    raise Forbidden("This is for accounts, and an admin has none: sign up for one.")


def admin_of(principal: Principal) -> AdminPrincipal:
    """The admin that asks. Raises `Unauthenticated` without a session, `Forbidden` for an account."""
    if isinstance(principal, AdminPrincipal):
        return principal
    if isinstance(principal, Anonymous):
        raise Unauthenticated('Log in first with adminLogIn, and send the token as "Authorization: Bearer ...".')
    raise Forbidden("This is for admins.")


def is_admin(principal: Principal) -> bool:
    """Whether an admin asks."""
    return isinstance(principal, AdminPrincipal)


def require_scope(principal: Principal, scope: Scope) -> AccountPrincipal:
    """The account that asks, if its credential has the scope. Raises `Unauthenticated` or `Forbidden`."""
    account = account_of(principal)
    if scope not in account.scopes:
        raise Forbidden(f"This takes the scope {scope}, which this API key does not have.")
    return account


def _viewer(principal: Principal) -> bool:
    return isinstance(principal, AccountPrincipal) and require_scope(principal, Scope.READ) is principal


def _read(principal: Principal) -> bool:
    return require_scope(principal, Scope.READ) is principal


def _trade(principal: Principal) -> bool:
    return require_scope(principal, Scope.TRADE) is principal


def _account_session(principal: Principal) -> bool:
    if account_of(principal).credential.kind != "session":
        raise Forbidden("This takes a session, not an API key: log in.")
    return True


def _any_session(principal: Principal) -> bool:
    return is_admin(principal) or _account_session(principal)


def _admin(principal: Principal) -> bool:
    return admin_of(principal) is principal


GATES: Mapping[Rule, Gate] = {
    Rule.VIEWER: _viewer,
    Rule.READ: _read,
    Rule.TRADE: _trade,
    Rule.ACCOUNT_SESSION: _account_session,
    Rule.ANY_SESSION: _any_session,
    Rule.ADMIN: _admin,
    Rule.ADMIN_OR_NULL: is_admin,
}

Table: TypeAlias = Mapping[str, tuple[Audience, Mapping[str, Rule]]]
"""By type name: who its objects are for, and the rule of each field."""


def guard(schema: GraphQLSchema, table: Table) -> None:
    """Check the table against the schema and put the gates in. Raises `AccessTableIsWrong`."""
    types = {
        name: type_
        for name, type_ in schema.type_map.items()
        if isinstance(type_, GraphQLObjectType) and not name.startswith("__")
    }
    faults = [f"{name} is listed and does not exist" for name in table.keys() - types.keys()]
    for name, type_ in types.items():
        if name not in table:
            faults.append(f"{name} is not listed")
            continue
        faults.extend(_faults(type_, table))
    if faults:
        raise AccessTableIsWrong("; ".join(sorted(faults)))
    for name, type_ in types.items():
        for field_name, rule in table[name][1].items():
            if rule in GATES:
                field = type_.fields[field_name]
                field.resolve = _gated(field.resolve or default_field_resolver, GATES[rule])


def _faults(type_: GraphQLObjectType, table: Table) -> list[str]:
    audience, rules = table[type_.name]
    faults = [f"{type_.name}.{name} is not listed" for name in type_.fields.keys() - rules.keys()]
    faults += [f"{type_.name}.{name} is listed and does not exist" for name in rules.keys() - type_.fields.keys()]
    if audience is Audience.EVERYBODY:
        faults += [
            f"{type_.name}.{name} leads to what is not for everybody and is OPEN"
            for name, field in type_.fields.items()
            if rules.get(name) is Rule.OPEN and _leads_to_owned(field, table)
        ]
    return faults


def _leads_to_owned(field: GraphQLField, table: Table) -> bool:
    target = get_named_type(field.type)
    if isinstance(target, GraphQLInterfaceType):
        return target.name == "Node"
    return target.name in table and table[target.name][0] is Audience.ITS_OWNER


def _gated(resolve: GraphQLFieldResolver, gate: Gate) -> GraphQLFieldResolver:
    def resolver(source: Any, info: GraphQLResolveInfo[Context], **arguments: Any) -> Any:
        if not gate(info.context.principal):
            return None
        return resolve(source, info, **arguments)

    return resolver
