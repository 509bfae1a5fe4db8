"""The stand-in's process: Serper's search, OpenAI-compatible chat completions, and the publishers' pages by Host.

It listens on loopback only, keeps nothing but a count of its searches, and knows nothing of the market.
`megatron demo stand-in --port N` runs it.
"""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from fractions import Fraction
from itertools import count
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app import clock
from app.demo.stand_in import search
from app.demo.stand_in.address import HOSTS, MODEL
from app.demo.stand_in.months import known_at
from app.demo.stand_in.pages import PUBLISHERS, page
from app.demo.stand_in.reader import answer
from app.settings import Settings

HOST: Final = "127.0.0.1"
BODY_BYTES_MAX: Final = 2**20
TOKEN_CHARS: Final = 4
"""Of English, roughly."""
STOP_SECONDS: Final = 1
ABOUT: Final = (
    "This is the stand-in of the Megatron demo market: POST /serper/search, POST /v1/chat/completions, and pages of"
    f" fictional publishers by Host ({', '.join(HOSTS)}).\n"
)


def serve(settings: Settings, *, port: int) -> int:
    """Serve on loopback until SIGINT or SIGTERM; the exit status. `port` 0 is any free one, which is told."""
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        sys.stderr.write(f"megatron: the stand-in cannot listen on port {port} of {HOST}: {error.strerror or error}\n")
        return 1
    sys.stdout.write(f"the stand-in serves http://{HOST}:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        application(speed=Fraction(settings.oracle_series_speed)),
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    with listener:
        asyncio.run(_run(_Server(config), listener))
    return 0


class _Server(uvicorn.Server):
    """A server that ends in order when it is told to, and not by the signal itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(server: _Server, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    await server.serve(sockets=[listener])


def application(*, speed: Fraction = Fraction(1)) -> Starlette:
    """The application; its months pass `speed` times as fast as usual."""
    turns = count()

    async def publisher_page(request: Request) -> Response:
        return _page(request, at=clock.now(), speed=speed)

    async def searched(request: Request) -> Response:
        return await _search(request, turn=next(turns), at=clock.now(), speed=speed)

    return Starlette(
        routes=[
            Route("/serper/search", searched, methods=["POST"]),
            Route("/v1/chat/completions", _complete, methods=["POST"]),
            Route("/{path:path}", publisher_page, methods=["GET"]),
        ],
        max_body_size=BODY_BYTES_MAX,
    )


def _page(request: Request, *, at: datetime, speed: Fraction) -> Response:
    host, path = request.url.hostname, request.url.path
    for publisher in PUBLISHERS:
        if publisher.host == host and publisher.path == path:
            return HTMLResponse(page(publisher, known_at(at, speed=speed)))
    if host not in HOSTS and path == "/":
        return PlainTextResponse(ABOUT)
    return PlainTextResponse("The stand-in has no such page.\n", status_code=404)


async def _search(request: Request, *, turn: int, at: datetime, speed: Fraction) -> Response:
    asked = await _json_object(request)
    query, num = (None, None) if asked is None else (asked.get("q"), asked.get("num", 10))
    if not isinstance(query, str) or type(num) is not int:
        return JSONResponse({"message": "Missing query parameter (said by the stand-in)", "statusCode": 400}, 400)
    return JSONResponse(search.answer(query, num=num, turn=turn, at=at, speed=speed))


async def _complete(request: Request) -> Response:
    asked = await _json_object(request)
    contents = _contents(asked.get("messages")) if asked is not None else None
    if not contents:
        error = {"message": "messages must be a list of texts (said by the stand-in)", "type": "invalid_request_error"}
        return JSONResponse({"error": error}, 400)
    said = answer(contents)
    prompt_tokens, completion_tokens = sum(map(len, contents)) // TOKEN_CHARS, len(said) // TOKEN_CHARS
    return JSONResponse(
        {
            "id": f"chatcmpl-{MODEL}",
            "object": "chat.completion",
            "created": int(clock.now().timestamp()),
            "model": MODEL,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }
    )


async def _json_object(request: Request) -> dict[str, object] | None:
    try:
        asked = json.loads(await request.body())
    except (ValueError, RecursionError):
        return None
    return asked if isinstance(asked, dict) else None


def _contents(messages: object) -> list[str] | None:
    """The texts of a chat's messages; None where it has any other."""
    if not isinstance(messages, list):
        return None
    contents = [message.get("content") if isinstance(message, dict) else None for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    return texts if len(texts) == len(contents) else None
