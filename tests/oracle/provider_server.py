"""A server on loopback that speaks Serper's and the OpenAI-compatible wire formats, and does as a test says.

    async with provider_server() as server:
        settings = make_settings(serper_api_url=server.serper_url, huggingface_api_url=server.huggingface_url)
        server.results = [organic("https://one.example/a", title="One")]
        server.content = '{"delta_percent": 0, ...}'          # what the model writes; or a function of the request
        server.script(SEARCH, Answer(status=500), Answer(status=429, retry_after="2"))     # the next two answers
        server.always(MODEL, Answer(status=503))              # all others; None: the protocol's own again
        server.pages["/a"] = page("<p>53,000</p>")            # GET of other paths, for fetching
        ...
        assert server.searches[0].json == {"q": "query", "num": 5}

An `Answer` left as it is gives the protocol's own good answer. `gate` holds an answer back until the event is set,
`drip_seconds` sends its body byte by byte, `is_cut` breaks the connection off. `run_provider_server` is the same in a
thread of its own, for tests that are not coroutines.
"""

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from app.tasks import end

SEARCH: Final = "search"
MODEL: Final = "model"
MODEL_NAME: Final = "stand-in-model"
TOKENS: Final = 1_000
READY_SECONDS_MAX: Final = 10
HEAD_BYTES_MAX: Final = 64 * 1024
REASONS: Final = {200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Answer:
    """How to answer. `body` None: what the protocol would give. `retry_after`: the header's value."""

    status: int = 200
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: str | None = None
    delay_seconds: float = 0.0
    gate: asyncio.Event | None = None
    drip_seconds: float | None = None
    is_cut: bool = False
    """The connection breaks off in the middle of the body, or before the answer where there is none."""


@dataclass(frozen=True)
class Request:
    """What arrived. Header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Content = str | Callable[[dict[str, Any]], str]
Results = Sequence[dict[str, Any]] | Callable[[str, int], Sequence[dict[str, Any]]]


def organic(
    link: str, *, title: str = "A page", snippet: str = "Some words.", date: str | None = None
) -> dict[str, Any]:
    """One of Serper's results."""
    result: dict[str, Any] = {"title": title, "link": link, "snippet": snippet}
    return result if date is None else {**result, "date": date}


def page(text: str, *, content_type: str = "text/html; charset=utf-8") -> Answer:
    """A page for `ProviderServer.pages`."""
    return Answer(body=text.encode(), headers={"content-type": content_type})


class ProviderServer:
    """The server. What is set on it counts for the requests that arrive from then on."""

    def __init__(self) -> None:
        self.url = ""
        """Without a path, such as http://127.0.0.1:40001."""
        self.results: Results = []
        """What searches find, or a function of query and number."""
        self.content: Content = "{}"
        """What the model writes, or a function of the request's JSON."""
        self.pages: dict[str, Answer] = {}
        self.requests: list[Request] = []
        """Everything that arrived, in order."""
        self.connections = 0
        """Ever made."""
        self._scripted: dict[str, deque[Answer]] = {SEARCH: deque(), MODEL: deque()}
        self._always: dict[str, Answer | None] = {SEARCH: None, MODEL: None}
        self._arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def serper_url(self) -> str:
        return f"{self.url}/serper"

    @property
    def huggingface_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def searches(self) -> list[Request]:
        """Search requests that arrived."""
        return [request for request in self.requests if _kind(request) == SEARCH]

    @property
    def completions(self) -> list[Request]:
        """The model's requests that arrived."""
        return [request for request in self.requests if _kind(request) == MODEL]

    def script(self, kind: str, *answers: Answer) -> None:
        """Answer the next requests of this kind so, one after the other."""
        self._scripted[kind].extend(answers)

    def always(self, kind: str, answer: Answer | None) -> None:
        """Answer all requests of this kind so that no script is left for; None: as the protocol would."""
        self._always[kind] = answer

    async def arrived(self, count: int) -> None:
        """Wait until `count` requests have arrived since the start."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    # -------------------------------------------------------------------------------------------------- the wire

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    request = await _read(reader)
                    async with self._arrived:
                        self.requests.append(request)
                        self._arrived.notify_all()
                    if not await self._answer(request, writer):
                        break
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """Drop all connections."""
        await end(self._tasks)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        answer = self._choose(request)
        if answer.gate is not None:
            await answer.gate.wait()
        await asyncio.sleep(answer.delay_seconds)
        if answer.is_cut and answer.body is None:
            return False
        body = self._body(request) if answer.body is None else answer.body
        headers = {"content-type": "application/json", "content-length": str(len(body)), **answer.headers}
        if answer.retry_after is not None:
            headers["retry-after"] = answer.retry_after
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Whatever')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if answer.drip_seconds is not None:
            for at in range(len(body)):
                writer.write(body[at : at + 1])
                await writer.drain()
                await asyncio.sleep(answer.drip_seconds)
        else:
            writer.write(body[: len(body) // 2] if answer.is_cut else body)
        await writer.drain()
        return not answer.is_cut

    def _choose(self, request: Request) -> Answer:
        kind = _kind(request)
        if kind is None:
            return self.pages.get(request.path, Answer(status=404, body=b"no such page"))
        if self._scripted[kind]:
            return self._scripted[kind].popleft()
        return self._always[kind] or Answer()

    def _body(self, request: Request) -> bytes:
        kind = _kind(request)
        if kind == SEARCH:
            return self._found(request.json)
        return self._completed(request.json) if kind == MODEL else b""

    def _found(self, asked: dict[str, Any]) -> bytes:
        results = self.results(asked["q"], asked["num"]) if callable(self.results) else self.results
        numbered = [{**result, "position": at} for at, result in enumerate(results[: asked["num"]], 1)]
        parameters = {"q": asked["q"], "type": "search", "num": asked["num"], "engine": "google"}
        return json.dumps({"searchParameters": parameters, "organic": numbered, "credits": 1}).encode()

    def _completed(self, asked: dict[str, Any]) -> bytes:
        content = self.content(asked) if callable(self.content) else self.content
        return completion(content)


def completion(
    content: str | None, *, model: object = MODEL_NAME, tokens: object = TOKENS, refusal: str | None = None
) -> bytes:
    """A chat completion's body."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_767_225_600,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 100, "total_tokens": tokens},
        }
    ).encode()


def _kind(request: Request) -> str | None:
    if request.method != "POST":
        return None
    return {"/serper/search": SEARCH, "/v1/chat/completions": MODEL}.get(request.path)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


@asynccontextmanager
async def provider_server() -> AsyncIterator[ProviderServer]:
    """A server on a free port, in this event loop."""
    server = ProviderServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
    try:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
    finally:
        listening.close()
        await server.close()
        await listening.wait_closed()


@contextmanager
def run_provider_server() -> Iterator[ProviderServer]:
    """A server in a thread with an event loop of its own. Set what it says; await nothing of it."""
    ready: threading.Event = threading.Event()
    running: list[tuple[ProviderServer, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stopping = asyncio.Event()
        async with provider_server() as server:
            running.append((server, asyncio.get_running_loop(), stopping))
            ready.set()
            await stopping.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()], name="provider server")
    thread.start()
    if not ready.wait(READY_SECONDS_MAX):
        raise TimeoutError("the provider server did not start")
    server, loop, stopping = running[0]
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
