"""The tutorial's batching loop, made to run: no limit, and the wait restarts with every arrival.

The first request of a batch, which the tutorial forgets, is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import pipeline

from tests.benchmarks.peers.model import FOLDER, PORT

waiting: asyncio.Queue[tuple[str, asyncio.Queue[object]]] = asyncio.Queue()


async def answer(request: Request) -> JSONResponse:
    """Queue the text, and answer with what comes back."""
    back: asyncio.Queue[object] = asyncio.Queue()
    await waiting.put(((await request.body()).decode(), back))
    return JSONResponse(await back.get())


async def run() -> None:
    """Whoever comes within a millisecond of the last is in the batch."""
    pipe = pipeline("text-classification", model=FOLDER)
    while True:
        batch = [await waiting.get()]
        with contextlib.suppress(asyncio.TimeoutError):
            while True:
                batch.append(await asyncio.wait_for(waiting.get(), timeout=0.001))
        answers = pipe([text for text, _ in batch], batch_size=len(batch))
        for (_, back), found in zip(batch, answers, strict=True):
            await back.put(found)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """The loop runs beside the server."""
    task = asyncio.create_task(run())
    yield
    task.cancel()


app = Starlette(routes=[Route("/", answer, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    uvicorn.run(app, port=PORT, log_level="error")
