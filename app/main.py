"""The ASGI application and the server around it: a composition root, where the API meets the market.

Wiring and routes only: GraphQL over HTTP is `api.http`, over WebSockets `api.websocket`, the playground `app.web`,
what is served `app.services`.
"""

import asyncio
import errno
import gc
import re
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import asyncpg
import orjson
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.loops.auto import auto_loop_factory

from api.connections import Connections
from api.http import GraphQLEndpoint, rate_headers
from api.operations import Operations
from api.peers import Origins, client_address
from api.schema import schema
from api.subscriptions.opening import open_subscription
from api.transport_ws import OpenSubscription, Session, SessionServices
from api.websocket import Entrance, websocket_class
from app.db import DatabaseMisconfigured
from app.errors import quoted
from app.http_protocol import GatheringProtocol
from app.services import RedisMisconfigured, Services, open_services
from app.settings import Settings
from app.system import ComponentStatus, readiness
from app.telemetry import configure_logging
from app.udf import Udf, Visitors
from app.web import Playground, default_dist

GRAPHQL_PATH: Final = "/graphql"
GRACEFUL_SECONDS: Final = 2
"""What is under way when the process is told to stop gets this long."""
KEEP_ALIVE_SECONDS: Final = 75
"""Longer than balancers keep idle connections, so that they and not we close them."""
BACKLOG: Final = 2_048
HOSTS_KNOWN_MAX: Final = 256

_OPERATIONS_FOLDER: Final = Path(__file__).resolve().parent.parent / "graphql" / "operations"
_OPERATION_NAME: Final = re.compile(r"^(?:query|mutation|subscription)\s+(\w+)", re.MULTILINE)
_WITHOUT_HOST_CHECK: Final = frozenset({"/healthz", "/readyz"})
"""Probes come by address, and their answers hold nothing."""
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
_log = structlog.get_logger(__name__)


class Application(Starlette):
    """The routes, with the GraphQL endpoint in front of the router: it is called without anything in between."""

    def __init__(
        self,
        services: Services,
        *,
        dist: Path | None = None,
        opening: OpenSubscription = open_subscription,
        operations: Operations | None = None,
    ) -> None:
        """`dist` is the folder of the built playground; `opening` opens subscriptions."""
        self.services = services
        self.operations = operations or Operations(schema, services)
        self.connections = Connections(services)
        self.endpoint = GraphQLEndpoint(self.operations, connections=self.connections, open_subscription=opening)
        self.websocket = self._websocket(opening)
        playground = Playground(dist or default_dist())
        self._graphql: ASGIApp = playground.in_front_of(self.endpoint)
        self._any_host = "*" in services.settings.allowed_hosts
        self._hosts = frozenset(host.lower() for host in services.settings.allowed_hosts)
        self._known_hosts: dict[bytes, bool] = {}
        super().__init__(
            routes=[
                Route("/", _home, methods=["GET"]),
                Route("/healthz", _healthz, methods=["GET"]),
                Route("/readyz", partial(_readyz, services), methods=["GET"]),
                Route("/metrics", partial(_metrics, services), methods=["GET"]),
                *playground.routes(),
                Udf(services, _visitors(services.settings)).routes(),
            ],
        )
        _add_gauges(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            path = scope["path"]
            if not self._any_host and path not in _WITHOUT_HOST_CHECK and not self.serves(_host(scope)):
                await _misdirected(scope)(scope, receive, send)
                return
            if path == GRAPHQL_PATH:
                await self._graphql(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def _websocket(self, opening: OpenSubscription) -> type[asyncio.Protocol]:
        """The class of this process's WebSockets, for uvicorn."""
        settings = self.services.settings
        sessions = SessionServices(
            operations=self.operations,
            connections=self.connections,
            open_subscription=opening,
            subscriptions_max=settings.subscriptions_per_connection,
            development=settings.development,
        )
        return websocket_class(
            Entrance(
                path=GRAPHQL_PATH,
                serves=self.serves,
                origins=Origins(settings.allowed_origins),
                proxies=settings.proxy_networks,
                connections=self.connections,
                init_seconds=settings.connection_init_seconds,
                begin=lambda socket: Session(socket, sessions),
            )
        )

    def serves(self, host: bytes) -> bool:
        """Whether a Host header names this service: a page of a foreign name that resolves to here is not let in."""
        if self._any_host:
            return True
        known = self._known_hosts.get(host)
        if known is None:
            if len(self._known_hosts) >= HOSTS_KNOWN_MAX:
                self._known_hosts.clear()
            name = re.sub(r":\d+$", "", host.decode("latin-1").lower())
            known = self._known_hosts[host] = name in self._hosts
        return known


def _visitors(settings: Settings) -> Visitors:
    """What the other protocols' edge knows of who asks, for the one that is not GraphQL."""

    def address(request: Request) -> str:
        forwarded = [value for name, value in request.scope["headers"] if name == b"x-forwarded-for"]
        return client_address(request.client.host if request.client else None, forwarded, settings.proxy_networks)

    return Visitors(address=address, may_read=Origins(settings.allowed_origins).allow, rate_headers=rate_headers)


def _host(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"host"), b"")


def _add_gauges(application: Application) -> None:
    operations, connections = application.operations, application.connections
    cache = operations.cache
    gauge = application.services.metrics.gauge
    gauge("megatron_connections", "WebSockets and event streams.", lambda: connections.open)
    gauge("megatron_subscriptions", "Subscriptions.", lambda: connections.subscriptions)
    gauge("megatron_graphql_in_flight", "GraphQL operations under way.", lambda: operations.in_flight)
    gauge("megatron_graphql_documents", "Documents kept.", lambda: len(cache))
    gauge("megatron_graphql_documents_bytes", "Estimate of what they take.", lambda: cache.memory_bytes)


def _misdirected(scope: Scope) -> Response:
    host = quoted(Headers(scope=scope).get("host", ""), 80)
    error = {
        "message": f"The host {host} is not served here: MEGATRON_ALLOWED_HOSTS lists those that are.",
        "extensions": {"code": "MISDIRECTED_REQUEST", "requestId": secrets.token_hex(8)},
    }
    return _json({"errors": [error]}, status=421)


def _json(content: object, *, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, _HEADERS, "application/json")


# ------------------------------------------------------------------------------------------------ other routes


async def _home(_: Request) -> Response:
    """A browser that is given the bare address gets the playground."""
    return RedirectResponse(GRAPHQL_PATH, headers=_HEADERS)


async def _healthz(_: Request) -> Response:
    """The process runs."""
    return _json({"status": "ok"})


async def _readyz(services: Services, _: Request) -> Response:
    """The process can serve: the database answers and is migrated. Redis is told, and does not decide."""
    ready, components = await readiness(services)
    return _json(
        {"status": "ready" if ready else "not ready", "components": [_component(each) for each in components]},
        status=200 if ready else 503,
    )


def _component(status: ComponentStatus) -> dict[str, object]:
    return {"name": status.name, "ok": status.ok, "detail": status.detail}


async def _metrics(services: Services, request: Request) -> Response:
    """For scrapers on this machine or in a trusted network; what a proxy passes on is somebody else's request."""
    forwarded = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    if forwarded or not _may_scrape(request, services.settings):
        return _json({"status": "metrics are for this machine and MEGATRON_TRUSTED_PROXIES only"}, status=403)
    return Response(services.metrics.render(), headers=_HEADERS, media_type="text/plain; version=0.0.4; charset=utf-8")


def _may_scrape(request: Request, settings: Settings) -> bool:
    try:
        peer = ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    return peer.is_loopback or any(peer in network for network in settings.proxy_networks)


# ------------------------------------------------------------------------------------------------ the server


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling, which would end the process before its services are closed."""

    def __init__(self, application: Application) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=GatheringProtocol,
                ws=application.websocket,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
            )
        )
        self._connections = application.connections

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving: event streams and WebSockets are told to come back, requests are answered."""
        self._connections.stop()
        await super().shutdown(sockets)
        await self._connections.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_run`."""
        yield


def serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; the exit status.

    What prevents serving is told in one line on standard error: a port that is taken, a database that cannot be
    reached, has not been migrated or was made for the other environment, no Redis to count in.
    """
    configure_logging(settings.log_level)
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        return _give_up(_why_not_listening(settings, error))
    with listener, asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        try:
            runner.run(_run(settings, listener))
        except (DatabaseMisconfigured, RedisMisconfigured) as error:
            return _give_up(str(error))
        except (OSError, asyncpg.PostgresError) as error:
            return _give_up(f"cannot reach the database: {error}")
    return 0


async def _run(settings: Settings, listener: socket.socket) -> None:
    async with open_services(settings, operations=_operation_names()) as services:
        server = Server(Application(services))
        # What exists by now stays for good: the collector need not walk through it again, in pauses of tens of ms.
        gc.collect()
        gc.freeze()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.handle_exit, number, None)
        _log.info("api.serving", host=settings.host, port=settings.port, environment=settings.env.value)
        await server.serve(sockets=[listener])
    _log.info("api.stopped")


def _operation_names() -> list[str]:
    """Names of the operations that the project itself publishes; none where it is installed without them."""
    return [
        name
        for document in sorted(_OPERATIONS_FOLDER.glob("*.graphql"))
        for name in _OPERATION_NAME.findall(document.read_text(encoding="utf-8"))
    ]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _why_not_listening(settings: Settings, error: OSError) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken: stop what listens there, or set MEGATRON_PORT to another port"
    if error.errno == errno.EACCES:
        return f"{where} may not be listened on by this user: set MEGATRON_PORT to a port above 1023"
    return f"cannot listen on {where}: {error.strerror or error}; MEGATRON_HOST must be an address of this machine"


def _give_up(why: str) -> int:
    sys.stderr.write(f"megatron: {why}\n")
    return 1
