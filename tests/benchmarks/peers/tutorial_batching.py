"""The tutorial's batching loop: no batch size, and the wait restarts with every arrival.

Two mistakes are fixed: it runs, and it keeps the first request of a batch.
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
