"""GraphQL over HTTP as npm's `graphql-http` audits it."""

import pytest
from pydantic import BaseModel, TypeAdapter

from tests.clients.conftest import RunNode

pytestmark = pytest.mark.clients

AUDITS = 61


class Audit(BaseModel):
    id: str
    name: str
    status: str
    reason: str | None


async def test_every_audit_of_graphql_over_http_answers_ok(api_url: str, run_node: RunNode) -> None:
    audits = TypeAdapter(list[Audit]).validate_json(await run_node("audits.mjs", f"{api_url}/graphql"))

    assert [f"{audit.status} {audit.id} {audit.name}: {audit.reason}" for audit in audits if audit.status != "ok"] == []
    assert len({audit.id for audit in audits}) == AUDITS
