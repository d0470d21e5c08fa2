"""The tutorial's server: one text at a time, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import pipeline

from tests.benchmarks.peers.model import FOLDER, PLACE, PORT

waiting: asyncio.Queue[tuple[str, asyncio.Queue[object]]] = asyncio.Queue()


async def answer(request: Request) -> JSONResponse:
    """Queue the text, and respond with its answer."""
    back: asyncio.Queue[object] = asyncio.Queue()
    await waiting.put(((await request.body()).decode(), back))
    return JSONResponse(await back.get())


async def run() -> None:
    """Run the texts one after the other, without end."""
    pipe = pipeline("text-classification", model=FOLDER, **PLACE)
    while True:
        text, back = await waiting.get()
        await back.put(pipe(text))


def serve(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the web server, and `run` on the same event loop."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(run())
        yield
        task.cancel()

    torch.set_num_threads(1)
    app = Starlette(routes=[Route("/", answer, methods=["POST"])], lifespan=lifespan)
    uvicorn.run(app, port=PORT, log_level="error")


if __name__ == "__main__":
    serve(run)
