"""How coerced input values become the dataclasses that resolvers take, compiled once per type.

Knows no particular input type and no rule of the market.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any

import strawberry
from strawberry.relay import GlobalID
from strawberry.scalars import is_scalar
from strawberry.types.arguments import InputContext
from strawberry.types.base import StrawberryMaybe, StrawberryObjectDefinition, StrawberryOptional
from strawberry.types.enum import StrawberryEnumDefinition, has_enum_definition


def compile_inputs(schema: strawberry.Schema) -> None:
    """Give each input type of `schema` a compiled way of being built from its coerced value.

    Strawberry's own looks up names and types of all fields again for each value, which costs a small order more than
    half of its execution. The outcome is the same. Types that build themselves are left alone, and fields that hold
    more than a scalar or an enum are converted by Strawberry.
    """
    for concrete in schema.schema_converter.type_map.values():
        definition = concrete.definition
        if isinstance(definition, StrawberryObjectDefinition) and definition.is_input and definition.from_input is None:
            definition.from_input = _builder(schema, definition)


def _builder(
    schema: strawberry.Schema, definition: StrawberryObjectDefinition
) -> Callable[[type, Mapping[str, Any], InputContext], Any]:
    leaves: list[tuple[str, str]] = []
    others: list[tuple[str, str, Any]] = []
    absent: dict[str, None] = {}
    for field in definition.fields:
        name = schema.config.name_converter.get_graphql_name(field)
        type_ = field.resolve_type(type_definition=definition)
        if field.default_value is MISSING and field.default_factory is MISSING:
            absent[field.python_name] = None
        if _is_passed_through(schema, type_):
            leaves.append((name, field.python_name))
        else:
            others.append((name, field.python_name, type_))

    def build(type_: type, value: Mapping[str, Any], context: InputContext) -> Any:
        arguments: dict[str, Any] = absent.copy()
        for name, python_name in leaves:
            if name in value:
                arguments[python_name] = value[name]
        for name, python_name, field_type in others:
            if name in value:
                arguments[python_name] = context.convert(value[name], field_type, name)
        return type_(**arguments)

    return build


def _is_passed_through(schema: strawberry.Schema, type_: Any) -> bool:
    """Whether Strawberry hands coerced values of this type to resolvers as they are."""
    if isinstance(type_, StrawberryMaybe):
        return False
    if isinstance(type_, StrawberryOptional):
        return _is_passed_through(schema, type_.of_type)
    if type_ is GlobalID:
        return False
    if isinstance(type_, StrawberryEnumDefinition) or has_enum_definition(type_):
        return True
    return bool(is_scalar(type_, schema.schema_converter.scalar_registry))
