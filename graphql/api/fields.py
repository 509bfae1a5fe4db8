"""Declaring fields that a method answers, with the method's own type kept for the type checker."""

from collections.abc import Callable
from typing import TypeVar

import strawberry

F = TypeVar("F", bound=Callable[..., object])


def computed(description: str, *, name: str | None = None) -> Callable[[F], F]:
    """A field of a Strawberry type that the decorated method answers. `name` only where camel case would not do."""
    decorate: Callable[[F], F] = strawberry.field(name=name, description=description)
    return decorate
