"""One request to an optional service, within a time and a size: whatever it does, the oracle goes on without it."""

import asyncio

import httpx


async def answer_within(
    client: httpx.AsyncClient, request: httpx.Request, *, seconds_max: float, bytes_max: int
) -> httpx.Response:
    """The answer, whole. Raises httpx.HTTPError when it takes longer than `seconds_max` or is over `bytes_max`."""
    try:
        async with asyncio.timeout(seconds_max):
            return await _whole(client, request, bytes_max)
    except TimeoutError as error:
        raise httpx.ReadTimeout(f"it took longer than {seconds_max:g} seconds", request=request) from error


async def _whole(client: httpx.AsyncClient, request: httpx.Request, bytes_max: int) -> httpx.Response:
    answer = await client.send(request, stream=True)
    try:
        content = bytearray()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > bytes_max:
                raise httpx.DecodingError(f"its answer is longer than {bytes_max} bytes", request=request)
    finally:
        await answer.aclose()
    return httpx.Response(answer.status_code, content=bytes(content), request=request)
