"""What a subscription's document selects: its one root field, the arguments given to it, and the selection's own text.

Two selections that ask for the same have the same text, however their documents are written: fragments are dissolved,
conditions and variables replaced by what they come to. Nothing is executed here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    GraphQLError,
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    get_named_type,
    is_abstract_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.execution.values import VariableValues, get_argument_values

from api.executor import ARGUMENT_ERROR_CODE, Operation, OperationExecutor, PlainFields

_NOBODY: Final = None
"""Looking at a selection takes no context: no resolver runs."""


@dataclass(frozen=True, slots=True)
class EventSelection:
    """The root field of a subscription, in an operation whose variables are bound.

    `name` is the field's, `key` the one that its events are answered under. `arguments` are coerced, by their names.
    """

    name: str
    key: str
    type: GraphQLObjectType
    details: FieldDetailsList
    arguments: dict[str, Any]
    operation: Operation
    variables: VariableValues

    def fields(self) -> GroupedFieldSet:
        """What is selected of the event, by response name in the document's order."""
        return self.fields_of(self.type, self.details)

    def fields_of(self, type_: GraphQLObjectType, details: FieldDetailsList) -> GroupedFieldSet:
        """What is selected of an object of `type_` behind a field of the event."""
        return self._executor().collect_subfields(type_, details).grouped_field_set

    def plain_fields(
        self, type_: GraphQLObjectType, fields: GroupedFieldSet, left_blank: Collection[str] = ()
    ) -> PlainFields | None:
        """How to read these fields of objects without an executor; None where that cannot be."""
        return self._executor().plain_fields(type_, fields, left_blank)

    def text(self) -> str:
        """The selection as text; the same for all that ask for the same of the same field, under the same name."""
        return f"{self.key}:{self.name}{_text(self._executor(), self.type, self.details)}"

    def _executor(self) -> OperationExecutor:
        return OperationExecutor(self.operation, _NOBODY, self.variables)


def event_selection(operation: Operation, variables: VariableValues) -> EventSelection:
    """The root field of a valid subscription. Raises `GraphQLError` for an argument of which the value is not valid."""
    bound = operation.bound()
    executor = OperationExecutor(bound, _NOBODY, variables)
    root, fields = executor.root_selection()
    # Validation has seen to it that there is one field, under no condition.
    ((key, details),) = fields.items()
    node = details[0].node
    field = executor.schema.get_field(root, node.name.value)
    if field is None:
        raise GraphQLError(f"Subscription has no field {node.name.value}.", node)
    return EventSelection(
        name=node.name.value,
        key=key,
        type=_object_type(field),
        details=details,
        arguments=_arguments(field, details, variables),
        operation=bound,
        variables=variables,
    )


def _object_type(field: GraphQLField) -> GraphQLObjectType:
    named = get_named_type(field.type)
    if not isinstance(named, GraphQLObjectType):
        raise TypeError(f"a stream's events are objects; {named} is none")
    return named


def _arguments(field: GraphQLField, details: FieldDetailsList, variables: VariableValues) -> dict[str, Any]:
    first = details[0]
    try:
        return get_argument_values(field, first.node, variables, first.fragment_variable_values)
    except GraphQLError as error:
        raise GraphQLError(error.message, error.nodes, extensions={"code": ARGUMENT_ERROR_CODE}) from error


def _text(executor: OperationExecutor, type_: GraphQLNamedType, details: FieldDetailsList) -> str:
    if is_object_type(type_):
        return f"{{{_fields_text(executor, type_, details)}}}"
    if is_abstract_type(type_):
        possible = sorted(executor.schema.get_possible_types(type_), key=lambda each: each.name)
        return "".join(f"[{each.name}{_text(executor, each, details)}]" for each in possible)
    return ""


def _fields_text(executor: OperationExecutor, type_: GraphQLObjectType, details: FieldDetailsList) -> str:
    parts: list[str] = []
    for key, inner in executor.collect_subfields(type_, details).grouped_field_set.items():
        name = inner[0].node.name.value
        field = executor.schema.get_field(type_, name)
        if field is not None:
            arguments = _arguments(field, inner, executor.variable_values) if field.args else {}
            given = f"({sorted(arguments.items())!r})" if arguments else ""
            parts.append(
                f"{'' if key == name else key + ':'}{name}{given}{_text(executor, get_named_type(field.type), inner)}"
            )
    return " ".join(parts)
