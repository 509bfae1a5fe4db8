"""Execution of one operation: graphql-core's executor, with what does not change between requests worked out once.

An `Operation` is a validated operation of a cached document. It keeps which fields are selected on which type, how
each is resolved and what its literal arguments are, so that a request pays for resolvers and values only. A field that
is an attribute of its object is read and serialised on the spot. Whatever is out of the ordinary (errors, awaitables,
lists, abstract types) goes through graphql-core's own methods: the answers are the same.

Knows nothing of HTTP, of limits or of any particular field.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from copy import copy
from types import CodeType, CoroutineType
from typing import Any, Final, TypeAlias

from graphql import (
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    Node,
    OperationDefinitionNode,
    OperationType,
    TypeNameMetaFieldDef,
    Undefined,
    VariableNode,
    get_variable_values,
    is_leaf_type,
    is_non_null_type,
    visit,
)
from graphql.execution import Executor, default_field_resolver, default_type_resolver
from graphql.execution.collect_fields import FieldDetailsList, FragmentDetails, GroupedFieldSet, collect_fields
from graphql.execution.get_variable_signature import GraphQLVariableSignature, get_variable_signature
from graphql.execution.values import VariableValues, VariableValueSource, get_argument_values
from graphql.language import BREAK, Visitor, VisitorAction
from graphql.pyutils import Path
from graphql.utilities.coerce_input_value import coerce_default_value, coerce_input_value
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField

Sources: TypeAlias = dict[str, VariableValueSource]

VARIABLE_ERRORS_MAX: Final = 10
ARGUMENT_ERROR_CODE: Final = "BAD_USER_INPUT"

_awaitable_types: dict[type, bool] = {}


def is_awaitable(value: object) -> bool:
    """Whether `value` can be awaited, decided once per type."""
    type_ = type(value)
    try:
        return _awaitable_types[type_]
    except KeyError:
        return _awaitable_types.setdefault(type_, type_ is CoroutineType or hasattr(type_, "__await__"))


class FieldPlan:
    """How one field of a selection set is executed on one object type.

    `variables` are the arguments that are just a variable: (argument, variable, may be null); None when a variable
    stands deeper. `literals` are all other arguments, known once the field has been executed.
    """

    __slots__ = (
        "attribute",
        "details",
        "field",
        "literals",
        "name",
        "nodes",
        "nullable",
        "resolve",
        "serialize",
        "type",
        "variables",
    )

    def __init__(self, field: GraphQLField, details: FieldDetailsList) -> None:
        node = details[0].node
        self.details = details
        self.nodes: list[FieldNode] = [detail.node for detail in details]
        self.name = node.alias.value if node.alias else node.name.value
        self.field = field
        self.type = field.type
        self.nullable = not is_non_null_type(field.type)
        inner = field.type.of_type if is_non_null_type(field.type) else field.type
        self.serialize: Callable[[Any], Any] | None = inner.coerce_output_value if is_leaf_type(inner) else None
        self.resolve = field.resolve or default_field_resolver
        self.attribute = _attribute(field)
        self.variables = None if details[0].fragment_variable_values else _variable_arguments(field, node)
        self.literals: dict[str, Any] | None = None if field.args else {}


class PlainFields:
    """The fields of an object that are all attributes of it: what is read by the thousand needs no executor.

    `left_blank` are names of further fields that whoever reads puts in afterwards, at their place in the order.
    """

    __slots__ = ("_attributes", "_blank")

    def __init__(self, type_: GraphQLObjectType, plans: Iterable[FieldPlan], left_blank: Collection[str] = ()) -> None:
        """Raises `NotPlain` where a field is no attribute."""
        self._blank: dict[str, Any] = {}
        self._attributes: list[tuple[str, str, Callable[[Any], Any], bool]] = []
        for plan in plans:
            self._blank[plan.name] = type_.name if plan.field is TypeNameMetaFieldDef else None
            if plan.name in left_blank or plan.field is TypeNameMetaFieldDef:
                continue
            if plan.attribute is None or plan.serialize is None:
                raise NotPlain(f"{type_.name}.{plan.name} is no attribute")
            self._attributes.append((plan.name, plan.attribute, plan.serialize, plan.nullable))

    def read(self, source: object) -> dict[str, Any] | None:
        """The fields' values in the document's order; None where one is not what its type says, for that is an error
        which takes an executor to be told."""
        values = self._blank.copy()
        try:
            for name, attribute, serialize, nullable in self._attributes:
                value = getattr(source, attribute)
                if value is not None:
                    value = values[name] = serialize(value)
                if value is None and not nullable:
                    return None
        except Exception:
            return None
        return values


class NotPlain(Exception):  # noqa: N818 - says what it is
    """A selection has fields that take an executor."""


_READS_ATTRIBUTE: Final = next(
    (
        code
        for code in GraphQLCoreConverter.from_resolver.__code__.co_consts
        if isinstance(code, CodeType) and code.co_name == "_get_basic_result"
    ),
    None,
)
"""Code of the resolver that Strawberry gives to a field without one. Told by identity: a wrapper around it, such as a
gate, can copy its attributes and its name, but not its code."""


def _attribute(field: GraphQLField) -> str | None:
    """The attribute that a field without a resolver of its own reads from its object; None for any other field."""
    definition = field.extensions.get("strawberry-definition")
    if (
        isinstance(definition, StrawberryField)
        and definition.default_resolver is getattr
        and _READS_ATTRIBUTE is not None
        and getattr(field.resolve, "__code__", None) is _READS_ATTRIBUTE
    ):
        return definition.python_name
    return None


def _variable_arguments(field: GraphQLField, node: FieldNode) -> list[tuple[str, str, bool]] | None:
    """Arguments that are just a variable, as (argument, variable, may be null); None when variables are nested."""
    found: list[tuple[str, str, bool]] = []
    for argument in node.arguments or ():
        if isinstance(argument.value, VariableNode):
            definition = field.args[argument.name.value]
            nullable = not is_non_null_type(definition.type)
            found.append((definition.out_name or argument.name.value, argument.value.name.value, nullable))
        elif _mentions_variable(argument.value):
            return None
    return found


class _VariableFinder(Visitor):
    found = False

    def enter_variable(self, *_: object) -> VisitorAction:
        self.found = True
        return BREAK


def _mentions_variable(node: Node) -> bool:
    finder = _VariableFinder()
    visit(node, finder)
    return finder.found


class _ConditionFinder(Visitor):
    """Finds what makes the selected fields differ between requests."""

    found = False

    def enter_directive(self, node: Node, *_: object) -> VisitorAction:
        self.found = _mentions_variable(node)
        return BREAK if self.found else None

    def enter_fragment_spread(self, node: Node, *_: object) -> VisitorAction:
        self.found = bool(getattr(node, "arguments", None))
        return BREAK if self.found else None


class Operation:
    """A validated operation, ready to be executed any number of times.

    Raises `GraphQLError` when a variable's type is no input type, which validation rules out.
    """

    def __init__(
        self, schema: GraphQLSchema, node: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
    ) -> None:
        self.schema = schema
        self.node = node
        self.name = node.name.value if node.name else None
        self.kind = node.operation
        self.fragments = {name: FragmentDetails(fragment) for name, fragment in fragments.items()}
        self.fragment_definitions = dict(fragments)
        self.variables: list[tuple[GraphQLVariableSignature, Any]] = []
        for definition in node.variable_definitions or ():
            signature = get_variable_signature(schema, definition)
            if isinstance(signature, GraphQLError):
                raise signature
            self.variables.append((signature, coerce_default_value(signature) if signature.default else Undefined))
        self.is_static = not _has_conditions(node, fragments)
        self.root_fields: GroupedFieldSet | None = None
        self.sub_fields: dict[tuple[GraphQLObjectType, int], Any] = {}
        self.field_plans: dict[int, tuple[FieldDetailsList, FieldPlan | None]] = {}
        self.selection_plans: dict[int, tuple[GroupedFieldSet, list[FieldPlan]]] = {}

    def bound(self) -> "Operation":
        """The same operation for execution with one set of variable values again and again.

        With the values fixed, the selected fields are as well: they are worked out once, conditions or not. Whoever
        asks for it must never execute it with other values.
        """
        bound = copy(self)
        bound.is_static = True
        bound.root_fields = None
        bound.sub_fields, bound.field_plans, bound.selection_plans = {}, {}, {}
        return bound

    def coerce_variables(self, inputs: dict[str, Any]) -> VariableValues | list[GraphQLError]:
        """The values that the resolvers see, or what is wrong with them: at most `VARIABLE_ERRORS_MAX` errors."""
        sources: Sources = {}
        coerced: dict[str, Any] = {}
        try:
            for signature, default in self.variables:
                name = signature.name
                given = inputs.get(name, Undefined)
                if given is Undefined:
                    sources[name] = VariableValueSource(signature)
                    if default is not Undefined:
                        coerced[name] = default
                    elif is_non_null_type(signature.type):
                        return self._variable_errors(inputs)
                    continue
                sources[name] = VariableValueSource(signature, given)
                value = coerce_input_value(given, signature.type)
                if value is Undefined:
                    return self._variable_errors(inputs)
                coerced[name] = value
        except RecursionError:
            return [GraphQLError("Variable values are nested too deeply.")]
        return VariableValues(sources, coerced)

    def _variable_errors(self, inputs: dict[str, Any]) -> list[GraphQLError]:
        values = get_variable_values(self.schema, self.node.variable_definitions or (), inputs, VARIABLE_ERRORS_MAX)
        return values if isinstance(values, list) else [GraphQLError("Variable values are not valid.")]

    def execute(self, context: object, variables: VariableValues) -> ExecutionResult | Awaitable[ExecutionResult]:
        """Run the operation. Field errors are in the result; nothing is raised."""
        return OperationExecutor(self, context, variables).run()


def _has_conditions(node: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]) -> bool:
    for definition in (node, *fragments.values()):
        finder = _ConditionFinder()
        visit(definition, finder)
        if finder.found:
            return True
    return False


class OperationExecutor(Executor[None]):
    """Executes an `Operation` once."""

    def __init__(self, plan: Operation, context: object, variables: VariableValues) -> None:
        super().__init__(
            plan.schema,
            plan.fragment_definitions,
            plan.fragments,
            None,
            context,
            plan.node,
            variables,
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            is_awaitable=is_awaitable,  # type: ignore[arg-type]
        )
        self.plan = plan
        if plan.is_static:
            self._relevant_sub_fields = plan.sub_fields
            self._field_plans = plan.field_plans
            self._selection_plans = plan.selection_plans
        else:
            self._field_plans = {}
            self._selection_plans = {}

    def run(self) -> ExecutionResult | Awaitable[ExecutionResult]:
        """The result, or an awaitable of it; field errors are collected in it."""
        try:
            data = self._execute_root_fields()
            if is_awaitable(data):
                return self._finish(data)
        except GraphQLError as error:
            self.collected_errors.add(error, None)
            data = None
        return ExecutionResult(data, self.collected_errors.errors or None)

    def root_selection(self) -> tuple[GraphQLObjectType, GroupedFieldSet]:
        """The root type and what is selected on it. Raises `GraphQLError` where the schema has no such root."""
        plan = self.plan
        root_type = plan.schema.get_root_type(plan.kind)
        if root_type is None:
            raise GraphQLError(f"There is no {plan.kind.value} to execute.", plan.node)
        fields = plan.root_fields
        if fields is None:
            fields = collect_fields(
                plan.schema, self.fragments, self.variable_values, root_type, plan.node
            ).grouped_field_set
            if plan.is_static:
                plan.root_fields = fields
        return root_type, fields

    def plain_fields(
        self, type_: GraphQLObjectType, fields: GroupedFieldSet, left_blank: Collection[str] = ()
    ) -> PlainFields | None:
        """How to read `fields` of objects of this type without an executor; None where that cannot be."""
        try:
            return PlainFields(type_, self._selection(type_, fields), left_blank)
        except NotPlain:
            return None

    def _execute_root_fields(self) -> Any:
        root_type, fields = self.root_selection()
        if self.plan.kind is OperationType.MUTATION and len(fields) > 1:
            return self.execute_fields_serially(root_type, None, None, fields, None)
        return self.execute_fields(root_type, None, None, fields, None)

    async def _finish(self, pending: Awaitable[dict[str, Any]]) -> ExecutionResult:
        data: dict[str, Any] | None = None
        try:
            data = await pending
        except GraphQLError as error:
            self.collected_errors.add(error, None)
        return ExecutionResult(data, self.collected_errors.errors or None)

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: None,
    ) -> Any:
        """Execute the fields of one object: those that are plain attributes at once, the others by graphql-core."""
        results: dict[str, Any] = {}
        pending: list[str] = []
        try:
            for plan in self._selection(parent_type, grouped_field_set):
                name = plan.name
                attribute = plan.attribute
                if attribute is not None and plan.serialize is not None:
                    try:
                        value = getattr(source_value, attribute)
                        if value is None:
                            if plan.nullable:
                                results[name] = None
                                continue
                        elif not is_awaitable(value) and not isinstance(value, Exception):
                            serialized = plan.serialize(value)
                            if serialized is not None and serialized is not Undefined:
                                results[name] = serialized
                                continue
                    except Exception:  # noqa: S110 - told below, by the way that locates errors
                        pass
                result = self._execute_plan(plan, source_value, Path(path, name, parent_type.name), parent_type)
                results[name] = result
                if is_awaitable(result):
                    pending.append(name)
        except Exception:
            if pending:
                self.settle_in_background([results[name] for name in pending])
            raise
        if not pending:
            return results
        return self._await_fields(results, pending)

    async def _await_fields(self, results: dict[str, Any], pending: list[str]) -> dict[str, Any]:
        if len(pending) == 1:
            results[pending[0]] = await results[pending[0]]
        else:
            values = await self.gather_async_work([results[name] for name in pending])
            results.update(zip(pending, values, strict=True))
        return results

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: FieldDetailsList,
        path: Path,
        position_context: None,
    ) -> Any:
        """Execute one field, as the fields of a mutation are: one after the other."""
        plan = self._field(parent_type, field_details_list)
        return Undefined if plan is None else self._execute_plan(plan, source, path, parent_type)

    def _execute_plan(self, plan: FieldPlan, source: Any, path: Path, parent_type: GraphQLObjectType) -> Any:
        try:
            info = self.build_resolve_info(plan.field, plan.nodes, parent_type, path)
            if plan.attribute is not None:
                value = getattr(source, plan.attribute)
            else:
                value = plan.resolve(source, info, **self._arguments(plan))
            if is_awaitable(value):
                return self.complete_awaitable_value(plan.type, plan.details, info, path, value, None)
            completed = self.complete_value(plan.type, plan.details, info, path, value, None)
            if is_awaitable(completed):
                return self._await_completed(completed, plan, path)
        except Exception as error:
            self.handle_field_error(error, plan.type, plan.details, path)
            return None
        return completed

    async def _await_completed(self, completed: Awaitable[Any], plan: FieldPlan, path: Path) -> Any:
        try:
            return await completed
        except Exception as error:
            self.handle_field_error(error, plan.type, plan.details, path)
            return None

    def _arguments(self, plan: FieldPlan) -> dict[str, Any]:
        literals = plan.literals
        if literals is None or plan.variables is None:
            return self._all_arguments(plan)
        if not plan.variables:
            return literals
        arguments = literals.copy()
        coerced = self.variable_values.coerced
        for argument, variable, nullable in plan.variables:
            value = coerced.get(variable, Undefined)
            if value is Undefined or (value is None and not nullable):
                return self._all_arguments(plan)
            arguments[argument] = value
        return arguments

    def _all_arguments(self, plan: FieldPlan) -> dict[str, Any]:
        details = plan.details[0]
        try:
            arguments = get_argument_values(
                plan.field, details.node, self.variable_values, details.fragment_variable_values
            )
        except GraphQLError as error:
            raise GraphQLError(error.message, error.nodes, extensions={"code": ARGUMENT_ERROR_CODE}) from error
        if plan.variables is not None:
            by_variable = {argument for argument, _, _ in plan.variables}
            plan.literals = {name: value for name, value in arguments.items() if name not in by_variable}
        return arguments

    def _selection(self, parent_type: GraphQLObjectType, grouped_field_set: GroupedFieldSet) -> list[FieldPlan]:
        known = self._selection_plans.get(id(grouped_field_set))
        if known is not None:
            return known[1]
        plans = [self._field(parent_type, details) for details in grouped_field_set.values()]
        selection = [plan for plan in plans if plan is not None]
        # The key is an identity: keeping the set itself keeps the identity its own.
        self._selection_plans[id(grouped_field_set)] = (grouped_field_set, selection)
        return selection

    def _field(self, parent_type: GraphQLObjectType, details: FieldDetailsList) -> FieldPlan | None:
        known = self._field_plans.get(id(details))
        if known is not None:
            return known[1]
        field = self.schema.get_field(parent_type, details[0].node.name.value)
        plan = FieldPlan(field, details) if field else None
        self._field_plans[id(details)] = (details, plan)
        return plan
