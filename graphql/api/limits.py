"""What an operation may ask for at most, measured on its document before anything of it is executed.

Everything that does not depend on variables is measured once per document; sizes of lists that come in variables are
filled in for each request. Nothing here looks at data: the cost of a list is what it could hold.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from graphql import (
    DefinitionNode,
    EnumValueNode,
    ExecutableDefinitionNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
)
from graphql.utilities.coerce_input_value import coerce_default_value

from app import clock
from app.pricing.intervals import Interval, buckets
from app.pricing.reads import CANDLES_MAX

SOURCE_LENGTH_MAX: Final = 100_000
"""Characters of a document."""
TOKENS_MAX: Final = 2_000
"""Lexical tokens of a document."""
COMMENTS_MAX: Final = 500
SELECTIONS_MAX: Final = 600
"""Fields and fragments that stand in a document, whether used or not."""
SAME_NAME_MAX: Final = 100
"""Fields of one response name in a document: validation compares each with each. 0.1 s for the worst document."""
SAME_ALIAS_MAX: Final = 30
"""The same for aliases, which differ in what they stand for and so cost more."""
DEPTH_MAX: Final = 15
"""Fields inside one another, the root field being 1."""
INTROSPECTION_DEPTH_MAX: Final = 20
"""The same below __schema and __type; GraphiQL's full introspection has 15."""
INTROSPECTION_LISTS_MAX: Final = 30
"""Lists asked of the introspection system, fragments counted wherever they are used; GraphiQL asks for 10."""
ALIASES_MAX: Final = 30
ROOT_FIELDS_MAX: Final = 20
LIST_SIZE_MAX: Final = 500
"""Of `first`, `last` and lists of ids."""
COUNT_BACK_MAX: Final = CANDLES_MAX
"""Of `countBack`, and of the candles that there is time for from `from` to `to`."""
LIST_PRODUCT_MAX: Final = 10_000
"""Objects that nested lists could hold: the product of their sizes."""
COST_MAX: Final = 30_000
"""Fields that could be executed; 10 us to 100 us of processor time each at worst."""
COST_PER_POINT: Final = 500
"""Cost that one point of the rate limits pays for."""

LIST_SIZE_ASSUMED: Final = 50
"""Where a paged list is asked for without a size: the page that is given then."""
ROW_FIELDS_PER_COST: Final = 5
"""Fields of a series' rows, which are only read and written, that cost as much as one other field: 7 us."""
CANDLES_ASSUMED: Final = 500
"""Candles that are given where neither countBack nor from says how many."""
PLAIN_LIST_SIZE_ASSUMED: Final = 10
"""Of lists that are not paged: balances, errors, scopes."""

VARIABLE_LISTS_MAX: Final = 50
"""Lists whose size comes in a variable, fragments counted wherever they are used."""
INTROSPECTION_LIST_COST: Final = 50

_SIZE_MAXIMA: Final = {"first": LIST_SIZE_MAX, "last": LIST_SIZE_MAX, "countBack": COUNT_BACK_MAX}
_ID_LISTS: Final = frozenset({"ids", "assetIds"})
_ASKED_SIZES: Final = _SIZE_MAXIMA.keys() | _ID_LISTS
_CANDLE_ARGUMENTS: Final = ("countBack", "from", "to", "interval")
_ROWS: Final = "Series"
_PAGES: Final = ("Connection", _ROWS)
"""How the names of types end whose lists have the size that the field of the type was asked for."""
_SHOWN_MAX: Final = 10**12


class TooComplex(Exception):  # noqa: N818 - a refusal, not a fault
    """The operation exceeds a limit. The message names the limit, the value and the maximum."""


@dataclass(frozen=True, slots=True)
class _VariableSize:
    """A list's size that comes in a variable; `default` where it does not come, or is null."""

    name: str
    variable: str
    maximum: int
    default: int

    def value(self, variables: Mapping[str, Any]) -> int:
        """The size in these variables, read without coercing them: what is no size is refused later."""
        given = variables.get(self.variable)
        size = self.default
        if isinstance(given, list):
            size = len(given)
        elif isinstance(given, int | float) and not isinstance(given, bool) and given == given // 1:
            # A float without a fraction is an Int to GraphQL.
            size = max(0, int(given))
        _at_most(self.name, size, self.maximum)
        return size


@dataclass(frozen=True, slots=True)
class _CandleCount:
    """How many candles a field is asked for: by `countBack`, or else by the time from `from` to `to`, or to now.

    Of each argument what stands in the document: a number, an interval's name or a variable; None where it is left out.
    """

    name: str
    arguments: Mapping[str, int | str | VariableNode | None]
    defaults: Mapping[str, int | str | None]

    def value(self, variables: Mapping[str, Any]) -> int:
        """The number with these variables, read without coercing them: what is none is refused later."""
        count_back, since, to, interval = (self._given(name, variables) for name in _CANDLE_ARGUMENTS)
        if isinstance(count_back, int):
            _at_most(f"{self.name}.countBack", count_back, COUNT_BACK_MAX)
            return max(0, count_back)
        if not isinstance(since, int) or not isinstance(interval, str) or interval not in Interval.__members__:
            return CANDLES_ASSUMED
        end = to if isinstance(to, int) else int(clock.now().timestamp()) + 1
        # What is more than the maximum is refused later, with a message of its own.
        return min(buckets(Interval(interval), since, end), COUNT_BACK_MAX)

    def _given(self, argument: str, variables: Mapping[str, Any]) -> object:
        value: object = self.arguments.get(argument)
        if isinstance(value, VariableNode):
            value = variables.get(value.name.value, self.defaults.get(value.name.value))
        if isinstance(value, float) and value == value // 1:
            # A float without a fraction is an Int to GraphQL.
            return int(value)
        return None if isinstance(value, bool) else value


@dataclass(frozen=True, slots=True)
class _Cost:
    """Fields that could be executed, and the largest number of objects that nested lists among them could hold.

    `lists` are those of which a size comes in a variable: what is known of the size, the variables, one object's cost.
    """

    fields: int = 0
    product: int = 1
    lists: tuple[tuple[int, tuple[_VariableSize | _CandleCount, ...], "_Cost"], ...] = ()
    lists_within: int = 0

    def beside(self, other: "_Cost") -> "_Cost":
        """The cost of both."""
        return _Cost(
            self.fields + other.fields,
            max(self.product, other.product),
            self.lists + other.lists,
            _bounded_lists(self.lists_within + other.lists_within),
        )

    def times(self, size: int, variables: tuple[_VariableSize | _CandleCount, ...]) -> "_Cost":
        """The cost of a list of objects that cost this each."""
        if self.lists or variables:
            return _Cost(0, 1, ((size, variables, self),), _bounded_lists(self.lists_within + 1))
        return _Cost(size * self.fields, max(1, size) * self.product)

    def evaluate(self, variables: Mapping[str, Any]) -> tuple[int, int]:
        """Fields and product once the variables are known."""
        fields, product = self.fields, self.product
        for known, sizes, each in self.lists:
            size = max(known, *(size.value(variables) for size in sizes)) if sizes else known
            fields_each, product_each = each.evaluate(variables)
            fields += size * fields_each
            product = max(product, max(1, size) * product_each)
        return fields, product


def _bounded_lists(count: int) -> int:
    # Checked while measuring, for fragments within fragments could double the terms at each level.
    _at_most("lists sized by variables", count, VARIABLE_LISTS_MAX)
    return count


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a selection set comes to, its fragments included."""

    depth: int = 0
    introspection_depth: int = 0
    introspection_lists: int = 0
    aliases: int = 0
    cost: _Cost = _Cost()

    def beside(self, other: "_Measure") -> "_Measure":
        """Both in one selection set."""
        return _Measure(
            max(self.depth, other.depth),
            max(self.introspection_depth, other.introspection_depth),
            self.introspection_lists + other.introspection_lists,
            self.aliases + other.aliases,
            self.cost.beside(other.cost),
        )


@dataclass(frozen=True, slots=True)
class Complexity:
    """An operation's measure. `fixed_points` are its points where no list's size comes in a variable."""

    root_fields: int
    is_mutation: bool
    cost: _Cost
    fixed_points: int | None = None

    def points(self, variables: Mapping[str, Any]) -> int:
        """Points of the rate limits, at least 1, for these variable values (as they came, not yet coerced).

        Raises `TooComplex` when a list or the whole would be too large.
        """
        if self.fixed_points is not None:
            return self.fixed_points
        fields, product = self.cost.evaluate(variables)
        _at_most("objects in nested lists", product, LIST_PRODUCT_MAX)
        _at_most("cost", fields, COST_MAX)
        points = 1 + max(0, fields - 1) // COST_PER_POINT
        return max(points, self.root_fields) if self.is_mutation else points


def check_document(definitions: Iterable[DefinitionNode]) -> None:
    """Refuse documents whose validation would take too long. Raises `TooComplex`."""
    selections = 0
    names, aliases = Counter[str](), Counter[str]()
    stack = []
    for definition in definitions:
        if isinstance(definition, ExecutableDefinitionNode):
            stack.append(definition.selection_set)
        if isinstance(definition, OperationDefinitionNode):
            _at_most("root fields", len(definition.selection_set.selections), ROOT_FIELDS_MAX)
    while stack:
        for selection in stack.pop().selections:
            selections += 1
            if isinstance(selection, FieldNode):
                names[(selection.alias or selection.name).value] += 1
                if selection.alias is not None:
                    aliases[selection.alias.value] += 1
            if isinstance(selection, FieldNode | InlineFragmentNode) and selection.selection_set is not None:
                stack.append(selection.selection_set)
    _at_most("fields and fragments of the document", selections, SELECTIONS_MAX)
    _at_most("fields of one name in the document", max(names.values(), default=0), SAME_NAME_MAX)
    _at_most("uses of one alias in the document", max(aliases.values(), default=0), SAME_ALIAS_MAX)


def measure(
    schema: GraphQLSchema, operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> Complexity:
    """Measure an operation of a parsed document, valid or not.

    Raises `TooComplex` when it exceeds a limit whatever its variables are.
    """
    root = schema.get_root_type(operation.operation)
    measurer = _Measurer(schema, operation, fragments)
    root_fields = measurer.root_fields(operation.selection_set)
    _at_most("root fields", root_fields, ROOT_FIELDS_MAX)
    measured = measurer.selection_set(operation.selection_set, root)
    _at_most("depth", measured.depth, DEPTH_MAX)
    _at_most("depth of the introspection", measured.introspection_depth, INTROSPECTION_DEPTH_MAX)
    _at_most("lists of the introspection", measured.introspection_lists, INTROSPECTION_LISTS_MAX)
    _at_most("aliases", measured.aliases, ALIASES_MAX)
    complexity = Complexity(root_fields, root is not None and root is schema.mutation_type, measured.cost)
    return complexity if measured.cost.lists else replace(complexity, fixed_points=complexity.points({}))


def _at_most(what: str, value: int, maximum: int) -> None:
    if value > maximum:
        shown = str(value) if value <= _SHOWN_MAX else f"more than {_SHOWN_MAX}"
        raise TooComplex(f"The operation is too complex: {what} {shown}, at most {maximum} allowed.")


class _Measurer:
    """Walks one operation; each fragment is walked once, however often it is used."""

    def __init__(
        self,
        schema: GraphQLSchema,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._measured: dict[tuple[str, bool], _Measure] = {}
        streams = schema.subscription_type
        self._events = {get_named_type(field.type) for field in streams.fields.values()} if streams else set()
        self._variable_defaults = {
            definition.variable.name.value: _literal_size(definition.default_value)
            for definition in operation.variable_definitions or ()
            if definition.default_value is not None
        }

        self._candle_defaults = {
            definition.variable.name.value: argument
            for definition in operation.variable_definitions or ()
            if not isinstance(argument := _candle_argument(definition.default_value), VariableNode)
        }

    def root_fields(self, node: SelectionSetNode) -> int:
        """Fields of the operation itself, those of its fragments included; each fragment counts once."""
        count, seen, stack = 0, set[str](), [node]
        while stack:
            for selection in stack.pop().selections:
                if isinstance(selection, FieldNode):
                    count += 1
                elif isinstance(selection, InlineFragmentNode):
                    stack.append(selection.selection_set)
                elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
                    seen.add(selection.name.value)
                    fragment = self._fragments.get(selection.name.value)
                    if fragment is not None:
                        stack.append(fragment.selection_set)
        return count

    def selection_set(
        self, node: SelectionSetNode, type_: GraphQLNamedType | None, *, introspecting: bool = False
    ) -> _Measure:
        """The measure of what is selected on an object of `type_`; None where the document names no such type."""
        total = _Measure()
        spread: set[str] = set()
        for selection in node.selections:
            if isinstance(selection, FieldNode):
                total = total.beside(self._field(selection, type_, introspecting=introspecting))
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                on = self._schema.get_type(condition.name.value) if condition else type_
                total = total.beside(self.selection_set(selection.selection_set, on, introspecting=introspecting))
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in spread:
                spread.add(selection.name.value)
                total = total.beside(self._fragment(selection.name.value, introspecting=introspecting))
        return total

    def _fragment(self, name: str, *, introspecting: bool) -> _Measure:
        known = self._measured.get((name, introspecting))
        if known is not None:
            return known
        # A fragment that comes back to itself is refused by validation; here it counts once.
        self._measured[name, introspecting] = _Measure()
        fragment = self._fragments.get(name)
        if fragment is not None:
            on = self._schema.get_type(fragment.type_condition.name.value)
            self._measured[name, introspecting] = self.selection_set(
                fragment.selection_set, on, introspecting=introspecting
            )
        return self._measured[name, introspecting]

    def _field(self, node: FieldNode, type_: GraphQLNamedType | None, *, introspecting: bool) -> _Measure:
        name = node.name.value
        introspecting = introspecting or name in ("__schema", "__type")
        field = self._schema.get_field(type_, name) if is_composite_type(type_) else None
        each = _Measure()
        if node.selection_set is not None:
            on = get_named_type(field.type) if field else None
            each = self.selection_set(node.selection_set, on, introspecting=introspecting)
        is_list = field is not None and is_list_type(get_nullable_type(field.type))
        aliases = each.aliases + (node.alias is not None)
        if introspecting:
            list_cost = _Cost(1 + INTROSPECTION_LIST_COST * is_list)
            depth, lists = each.introspection_depth + 1, each.introspection_lists + is_list
            return _Measure(1, depth, lists, aliases, list_cost.beside(each.cost))
        cost = each.cost
        if field is not None and node.selection_set is not None:
            size, variables = self._sizes(node, field)
            if is_list and type_ is not None and type_.name.endswith(_ROWS):
                cost = replace(cost, fields=-(-cost.fields // ROW_FIELDS_PER_COST))
            if size is None and not variables:
                size = self._size_assumed(type_, is_list=is_list)
            if size is not None or variables:
                cost = cost.times(size or 0, variables)
        return replace(each, depth=each.depth + 1, aliases=aliases, cost=_Cost(1).beside(cost))

    def _size_assumed(self, type_: GraphQLNamedType | None, *, is_list: bool) -> int | None:
        """How many objects a field of `type_` stands for that says nothing of it; None for one."""
        if type_ is not None and type_ is self._schema.subscription_type:
            return LIST_SIZE_ASSUMED
        if not is_list or (type_ is not None and type_.name.endswith(_PAGES)):
            return None
        # An event holds about one item for each of its stream's assets, and those are counted already.
        return None if type_ in self._events else PLAIN_LIST_SIZE_ASSUMED

    def _sizes(
        self, node: FieldNode, field: GraphQLField
    ) -> tuple[int | None, tuple[_VariableSize | _CandleCount, ...]]:
        """The size that is known and those that come in variables, of a field that can be asked for many objects."""
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        if field.args.keys() >= {*_CANDLE_ARGUMENTS}:
            return self._candles(node.name.value, given)
        size: int | None = None
        variables: list[_VariableSize] = []
        for argument, definition in field.args.items():
            maximum = _SIZE_MAXIMA.get(argument) or (LIST_SIZE_MAX if argument in _ID_LISTS else None)
            if maximum is None:
                continue
            name = f"{node.name.value}.{argument}"
            default = coerce_default_value(definition)
            value = given.get(argument)
            if isinstance(value, VariableNode):
                variable = value.name.value
                page = default if isinstance(default, int) else LIST_SIZE_ASSUMED
                absent = self._variable_defaults.get(variable, page)
                variables.append(_VariableSize(name, variable, maximum, absent))
            elif isinstance(value, NullValueNode):
                size = max(size or 0, LIST_SIZE_ASSUMED)
            elif value is not None:
                literal = _literal_size(value)
                _at_most(name, literal, maximum)
                size = max(size or 0, literal)
            elif isinstance(default, int):
                size = max(size or 0, default)
            elif argument in _SIZE_MAXIMA and not given.keys() & _ASKED_SIZES:
                size = max(size or 0, LIST_SIZE_ASSUMED)
        return size, tuple(variables)

    def _candles(
        self, name: str, given: Mapping[str, ValueNode]
    ) -> tuple[int | None, tuple[_VariableSize | _CandleCount, ...]]:
        arguments = {argument: _candle_argument(given.get(argument)) for argument in _CANDLE_ARGUMENTS}
        count = _CandleCount(name, arguments, self._candle_defaults)
        if isinstance(arguments["countBack"], int):
            return count.value({}), ()
        return None, (count,)


def _candle_argument(value: ValueNode | None) -> int | str | VariableNode | None:
    if isinstance(value, VariableNode):
        return value
    if isinstance(value, EnumValueNode):
        return value.value
    return int(value.value[:18]) if isinstance(value, IntValueNode) else None


def _literal_size(value: ValueNode) -> int:
    if isinstance(value, IntValueNode):
        # Eighteen digits are more than any maximum and cheap to read; a negative size is refused by the resolver.
        return max(0, int(value.value[:18]))
    if isinstance(value, NullValueNode):
        return LIST_SIZE_ASSUMED
    # What is no list stands for a list of one.
    return len(value.values) if isinstance(value, ListValueNode) else 1
