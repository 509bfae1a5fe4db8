"""Documents that have been seen, parsed, measured and validated, kept by their text.

A document that comes again costs one look-up. What is wrong with a document is kept too, so that repeating a bad one
is as cheap as repeating a good one. Bounded by entries and by memory; the least recently used goes first.
Executes nothing and knows nothing of HTTP.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from graphql import (
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
    ValidationRule,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from api.executor import Operation
from api.limits import (
    COMMENTS_MAX,
    SOURCE_LENGTH_MAX,
    TOKENS_MAX,
    Complexity,
    TooComplex,
    check_document,
    measure,
)
from app.errors import quoted

ENTRIES_MAX: Final = 1_000
MEMORY_MAX_BYTES: Final = 64 * 1024 * 1024
TOKEN_MEMORY_BYTES: Final = 560
"""What a document keeps for each of its tokens, nodes and plans of execution included: 400 to 560 measured."""
DOCUMENT_MEMORY_BYTES: Final = 2_000
"""What any document takes besides."""
NAMES_LENGTH_MAX: Final = 200
VALIDATION_ERRORS_MAX: Final = 20
PARSE_FAILED: Final = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED: Final = "GRAPHQL_VALIDATION_FAILED"
QUERY_TOO_COMPLEX: Final = "QUERY_TOO_COMPLEX"
OPERATION_NOT_CHOSEN: Final = "OPERATION_RESOLUTION_FAILED"
_TOO_LONG: Final = "Parsing aborted."


class StorableStringsRule(ValidationRule):
    """No string has a NUL character, which a GraphQL escape can write and PostgreSQL cannot store."""

    def enter_string_value(self, node: StringValueNode, *_: object) -> None:
        """Report a string with a NUL."""
        if "\0" in node.value:
            self.report_error(GraphQLError("The string has the escape \\u0000, which stands for no character.", node))


RULES: Final = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule, StorableStringsRule)
"""Fixed for good: rules that are made per request cost more than the validation."""


@dataclass(frozen=True, slots=True)
class RequestFault:
    """Why an operation cannot be executed, ready to be told. `locations` are (line, column), from 1."""

    code: str
    message: str
    locations: tuple[tuple[int, int], ...] = ()


Faults: TypeAlias = Sequence[RequestFault]


@dataclass(frozen=True, slots=True)
class ReadyOperation:
    """An operation that may be executed, and what it may cost."""

    operation: Operation
    complexity: Complexity


class Document:
    """A document that has been read once. `faults` is empty when its operations may be executed."""

    __slots__ = ("_fragments", "_nodes", "_ready", "_schema", "faults", "memory_bytes")

    def __init__(self, schema: GraphQLSchema, text: str) -> None:
        self._schema = schema
        self._nodes: dict[str | None, OperationDefinitionNode] = {}
        self._fragments: dict[str, FragmentDefinitionNode] = {}
        self._ready: dict[str | None, ReadyOperation | Faults] = {}
        self.memory_bytes = DOCUMENT_MEMORY_BYTES + 2 * len(text)
        self.faults = self._read(text)

    def _read(self, text: str) -> Faults:
        try:
            document = parse(
                text, max_lexical_tokens=TOKENS_MAX, max_comments=COMMENTS_MAX, max_source_length=SOURCE_LENGTH_MAX
            )
            check_document(document.definitions)
        except GraphQLSyntaxError as error:
            return (_fault(QUERY_TOO_COMPLEX if error.message.endswith(_TOO_LONG) else PARSE_FAILED, error),)
        except TooComplex as error:
            return (RequestFault(QUERY_TOO_COMPLEX, str(error)),)
        for definition in document.definitions:
            if isinstance(definition, OperationDefinitionNode):
                self._nodes[definition.name.value if definition.name else None] = definition
            elif isinstance(definition, FragmentDefinitionNode):
                self._fragments[definition.name.value] = definition
        errors = validate(self._schema, document, RULES, max_errors=VALIDATION_ERRORS_MAX)
        if not errors:
            self.memory_bytes += document.token_count * TOKEN_MEMORY_BYTES
        return tuple(_fault(VALIDATION_FAILED, error) for error in errors)

    def kind(self, name: str | None) -> OperationType | None:
        """What the operation is, valid or not; None when it cannot be told."""
        node = self._node(name)
        return node.operation if isinstance(node, OperationDefinitionNode) else None

    def operation(self, name: str | None) -> ReadyOperation | Faults:
        """The operation of that name, or the only one; else what is wrong."""
        if self.faults:
            return self.faults
        node = self._node(name)
        if isinstance(node, RequestFault):
            return (node,)
        key = node.name.value if node.name else None
        ready = self._ready.get(key)
        if ready is None:
            try:
                complexity = measure(self._schema, node, self._fragments)
                ready = ReadyOperation(Operation(self._schema, node, self._fragments), complexity)
            except TooComplex as error:
                ready = (RequestFault(QUERY_TOO_COMPLEX, str(error)),)
            except GraphQLError as error:
                ready = (_fault(VALIDATION_FAILED, error),)
            self._ready[key] = ready
        return ready

    def _node(self, name: str | None) -> OperationDefinitionNode | RequestFault:
        if name:
            node = self._nodes.get(name)
            return node or RequestFault(
                OPERATION_NOT_CHOSEN, f"The document has no operation named {quoted(name)}; it has: {self._names()}."
            )
        if len(self._nodes) == 1:
            return next(iter(self._nodes.values()))
        if self._nodes:
            return RequestFault(
                OPERATION_NOT_CHOSEN,
                f"The document has several operations, choose by operationName: {self._names()}.",
            )
        return RequestFault(OPERATION_NOT_CHOSEN, "The document has no operation to execute, only fragments.")

    def _names(self) -> str:
        return quoted(", ".join(name or "(one without a name)" for name in self._nodes), NAMES_LENGTH_MAX)


def _fault(code: str, error: GraphQLError) -> RequestFault:
    return RequestFault(code, error.message, tuple((each.line, each.column) for each in error.locations or ()))


class OperationCache:
    """The documents that were last used, by their text."""

    def __init__(
        self, schema: GraphQLSchema, *, entries_max: int = ENTRIES_MAX, memory_max_bytes: int = MEMORY_MAX_BYTES
    ) -> None:
        self._schema = schema
        self._entries_max = entries_max
        self._memory_max_bytes = memory_max_bytes
        self._documents: OrderedDict[str, Document] = OrderedDict()
        self.memory_bytes = 0
        """Estimate of what the kept documents take."""

    def __len__(self) -> int:
        return len(self._documents)

    def __contains__(self, text: str) -> bool:
        return text in self._documents

    def document(self, text: str) -> Document:
        """The document with this text, read now if it has not been kept."""
        known = self._documents.get(text)
        if known is not None:
            self._documents.move_to_end(text)
            return known
        document = self._documents[text] = Document(self._schema, text)
        self.memory_bytes += document.memory_bytes
        while len(self._documents) > self._entries_max or self.memory_bytes > self._memory_max_bytes:
            self.memory_bytes -= self._documents.popitem(last=False)[1].memory_bytes
        return document
