"""What every kind of object shares: the Node interface, and pages of lists as Relay's connections."""

from typing import Generic, TypeVar

import strawberry

from api.fields import computed

T = TypeVar("T")


@strawberry.interface(description="An object that `node` and `nodes` find again by its id.")
class Node:
    """Implemented by every type whose ids can be looked up."""

    id: strawberry.ID = strawberry.field(description="Global and permanent; opaque.")


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    """Relay's PageInfo."""

    has_next_page: bool = strawberry.field(description="Whether the list goes on after this page.")
    has_previous_page: bool = strawberry.field(description="Whether the list has elements before this page.")
    start_cursor: str | None = strawberry.field(description="The first element's cursor; null on an empty page.")
    end_cursor: str | None = strawberry.field(description="The last element's cursor; null on an empty page.")


@strawberry.type(description="An element of a list and its place there.")
class Edge(Generic[T]):
    """Relay's edge."""

    node: T = strawberry.field(description="The element.")
    cursor: str = strawberry.field(description="The element's place: give it as after or before. Opaque.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    """Relay's connection. `cursors` belong to `nodes`, one each."""

    nodes: list[T] = strawberry.field(description="The page's elements, in the list's order.")
    page_info: PageInfo = strawberry.field(description="Where the page lies in the list.")
    cursors: strawberry.Private[list[str]]

    @computed("The page's elements with their cursors, in the list's order.")
    def edges(self) -> list[Edge[T]]:
        return [Edge(node=node, cursor=cursor) for node, cursor in zip(self.nodes, self.cursors, strict=True)]
