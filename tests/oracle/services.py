"""Local servers that speak the protocols of Vercel Blob, Pinecone, Ably and embeddings, as far as they are used."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "name.id:secret-of-a-test"


@asynccontextmanager
async def serving(routes: list[Route]) -> AsyncIterator[str]:
    """Serve `routes` on a free port of loopback; its address."""
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        await server.shutdown()


Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Blobs:
    """Vercel Blob's PUT: `bodies` by path; `status` other than 200 refuses."""

    bodies: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    status: int = 200
    answer: bytes | None = None

    def routes(self) -> list[Route]:
        return [Route("/{path:path}", self._put, methods=["PUT"])]

    async def _put(self, request: Request) -> Response:
        headers = request.headers
        if headers["authorization"] != f"Bearer {KEY}":
            return JSONResponse({"error": {"code": "forbidden", "message": f"no such token: {KEY}"}}, 403)
        if headers["x-api-version"] != "9" or headers["x-add-random-suffix"] != "0":
            return JSONResponse({"error": {"code": "bad_request", "message": "another version"}}, 400)
        path = request.path_params["path"]
        if path in self.bodies and headers.get("x-allow-overwrite") != "1":
            return JSONResponse({"error": {"code": "bad_request", "message": "This blob already exists"}}, 400)
        if self.answer is not None or self.status != 200:
            return Response(self.answer or b"down", self.status)
        self.bodies[path] = (headers["x-content-type"], await request.body())
        url = f"https://store.blob.example/{path}"
        return JSONResponse({"url": url, "downloadUrl": f"{url}?download=1", "pathname": path})


@dataclass
class Pinecone:
    """A Pinecone index's fetch and upsert, and embeddings: two numbers for each text, chosen by `embedding`."""

    embedding: Callable[[str], list[float]] = field(default=lambda text: [float(len(text)), 1.0])
    vectors: dict[str, list[float]] = field(default_factory=dict)
    embedded: list[str] = field(default_factory=list)
    status: int = 200

    def routes(self) -> list[Route]:
        return [
            Route("/vectors/fetch", self._fetch),
            Route("/vectors/upsert", self._upsert, methods=["POST"]),
            Route("/v1/embeddings", self._embed, methods=["POST"]),
        ]

    async def _fetch(self, request: Request) -> Response:
        if request.headers["api-key"] != KEY or self.status != 200:
            return Response("Unauthorized", self.status if self.status != 200 else 401)
        wanted = request.query_params.getlist("ids")
        found = {each: {"id": each, "values": self.vectors[each]} for each in wanted if each in self.vectors}
        return JSONResponse({"vectors": found, "namespace": request.query_params["namespace"]})

    async def _upsert(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        self.vectors |= {record["id"]: record["values"] for record in body["vectors"]}
        return JSONResponse({"upsertedCount": len(body["vectors"])})

    async def _embed(self, request: Request) -> Response:
        texts = orjson.loads(await request.body())["input"]
        self.embedded += texts
        # Out of order, as the protocol allows: the index tells.
        data = [
            {"object": "embedding", "index": place, "embedding": self.embedding(text)}
            for place, text in reversed(list(enumerate(texts)))
        ]
        return JSONResponse({"object": "list", "data": data, "model": "tiny", "usage": {"total_tokens": 7}})


@dataclass
class Ably:
    """Ably's batch publish: `messages` by channel, each id once; `arrived` is set with each request."""

    messages: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    status: int = 201
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def routes(self) -> list[Route]:
        return [Route("/messages", self._publish, methods=["POST"])]

    async def _publish(self, request: Request) -> Response:
        self.arrived.set()
        if request.headers["authorization"] != f"Basic {base64.b64encode(KEY.encode()).decode()}":
            return JSONResponse({"error": {"code": 40_101, "message": f"Invalid credentials {KEY}"}}, 401)
        if self.status != 201:
            return JSONResponse({"error": {"code": 50_000, "message": "down"}}, self.status)
        for spec in orjson.loads(await request.body()):
            for channel in spec["channels"]:
                kept = self.messages.setdefault(channel, [])
                ids = {message["id"] for message in kept}
                kept += [message for message in spec["messages"] if message["id"] not in ids]
        return JSONResponse([{"successCount": 1, "failureCount": 0, "results": []}], 201)
