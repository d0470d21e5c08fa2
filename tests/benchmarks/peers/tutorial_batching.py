"""The tutorial's batching loop, completed: no batch size, a wait restarted by every arrival.

The first request of a batch is kept; the tutorial loses it.
"""

from __future__ import annotations

import asyncio
import contextlib

from transformers import pipeline

from tests.benchmarks.peers.model import FOLDER, PLACE
from tests.benchmarks.peers.tutorial import serve, waiting


async def run() -> None:
    """Batch requests that arrive within a millisecond of the previous one."""
    pipe = pipeline("text-classification", model=FOLDER, **PLACE)
    while True:
        batch = [await waiting.get()]
        with contextlib.suppress(asyncio.TimeoutError):
            while True:
                batch.append(await asyncio.wait_for(waiting.get(), timeout=0.001))
        answers = pipe([text for text, _ in batch], batch_size=len(batch))
        for (_, back), found in zip(batch, answers, strict=True):
            await back.put(found)


if __name__ == "__main__":
    serve(run)
