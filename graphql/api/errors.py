"""GraphQL errors that resolvers raise themselves. Expected refusals of mutations are data: `types.refusals`."""

from graphql import GraphQLError


class BadUserInput(GraphQLError):  # noqa: N818 - named for what it is
    """An argument that can never be accepted as it is; the message names it and quotes its value."""

    def __init__(self, message: str) -> None:
        super().__init__(message, extensions={"code": "BAD_USER_INPUT"})
