"""The benchmark's web: a search engine, a language model and publishers, all simulated, with the latency of real ones.

`python -m benchmarks.oracle_web PORT` serves them on loopback. Every search of an asset gives its pages a new figure,
so that no reading repeats another; all pages of an asset agree.
"""

import asyncio
import re
import sys
from collections import Counter
from typing import Final

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

LATENCY_SECONDS: Final = 3.0
"""Of a search and of a completion."""
PUBLISHERS: Final = tuple(f"publisher{number}.example" for number in range(5))
PAGE_BYTES: Final = 100_000
_FIGURE: Final = re.compile(r"The bench index (\d+) stood at ([0-9.]+) points")
_PARAGRAPH: Final = (
    "<p>Nothing of what is said in this paragraph, number {n}, has to do with any index; it is here because <b>pages"
    '</b> have <a href="/more/{n}">words</a> around what they tell, and tables of {n} rows &amp; notes.</p>\n'
)

searches: Counter[int] = Counter()


def figure(asset: int) -> str:
    """What the asset stands at: a little more with each search."""
    return f"{100 + searches[asset] % 50 / 100:.2f}"


async def search(request: Request) -> Response:
    """Serper's answer: a page at each publisher."""
    asked = orjson.loads(await request.body())
    asset = int(asked["q"].rpartition(" ")[2])
    await asyncio.sleep(LATENCY_SECONDS)
    searches[asset] += 1
    organic = [
        {"title": f"Index {asset}", "link": f"http://{host}/index/{asset}", "snippet": "", "position": place}
        for place, host in enumerate(PUBLISHERS, 1)
    ]
    return JSONResponse({"searchParameters": asked, "organic": organic, "credits": 1})


async def complete(request: Request) -> Response:
    """An OpenAI-compatible completion: what a model would read in the pages that it is shown."""
    asked = orjson.loads(await request.body())
    await asyncio.sleep(LATENCY_SECONDS)
    text = " ".join(message["content"] for message in asked["messages"])
    found = _FIGURE.search(text)
    urls = sorted(set(re.findall(r"http://publisher\d\.example/index/\d+", text)))
    value = found[2] if found else "0"
    before = re.search(r"\bF\b[^0-9]{0,80}([0-9]+(?:\.[0-9]+)?)", text)
    current = float(before[1]) if before else 100.0
    content = {
        "delta_percent": round((float(value) / current - 1) * 100, 4),
        "suggested_price": float(value),
        "confidence": 0.9,
        "summary": "As the publishers say.",
        "source_urls": urls,
        "quotations": [
            {"url": url, "quotation": found[0] if found else "nothing at all", "number": float(value)} for url in urls
        ],
    }
    return JSONResponse(
        {
            "id": "bench", "object": "chat.completion", "model": "bench",
            "choices": [
                {
                    "index": 0, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": orjson.dumps(content).decode()},
                }
            ],
            "usage": {"prompt_tokens": len(text) // 4, "completion_tokens": 200, "total_tokens": len(text) // 4 + 200},
        }
    )  # fmt: skip


async def page(request: Request) -> Response:
    """A publisher's page of 100 kB, the figure near its beginning."""
    asset, host = int(request.path_params["asset"]), request.url.hostname or ""
    return Response(page_of(asset, host), media_type="text/html; charset=utf-8")


def page_of(asset: int, host: str) -> str:
    """A publisher's page as it is now: the same text elsewhere would be the same source."""
    return (
        f"{_BEGIN}<p>By {host}.</p><p>The bench index {asset} stood at {figure(asset)} points at the close.</p>\n{_END}"
    )


async def ready(_: Request) -> Response:
    """Whether it serves."""
    return PlainTextResponse("ready")


def _paragraphs(first: int, size: int) -> str:
    text, number = "", first
    while len(text) < size:
        text += _PARAGRAPH.format(n=number)
        number += 1
    return text


_BEGIN: Final = f"<!doctype html><html><head><title>Figures</title></head><body><article>{_paragraphs(0, 5_000)}"
_END: Final = f"{_paragraphs(1_000, PAGE_BYTES - 5_000)}</article></body></html>"

app = Starlette(
    routes=[
        Route("/ready", ready),
        Route("/serper/search", search, methods=["POST"]),
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/index/{asset:int}", page),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
