"""Collation equals the collate function of transformers, with integers kept as integers."""

from __future__ import annotations

import pickle
import random
import re
from typing import Any

import pytest
import torch
from transformers.pipelines.base import pad_collate_fn

from notebook_serve.models.collation import Collation, make_chunk, tokenize_to_lists
from tests.helpers.small_models import tokenizer


def made(lengths: list[int], rng: random.Random) -> list[dict[str, Any]]:
    """Return the results of preprocess for texts of these lengths, with all keys of any task."""
    return [
        {
            "input_ids": torch.tensor([[rng.randrange(50) for _ in range(length)]]),
            "attention_mask": torch.ones(1, length, dtype=torch.int64),
            "special_tokens_mask": torch.zeros(1, length, dtype=torch.int64),
            "offset_mapping": torch.zeros(1, length, 2, dtype=torch.int64) + length,
            "sentence": f"of {length}",
            "is_last": True,
        }
        for length in lengths
    ]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lengths", [[3], [4, 4], [1, 7, 3], [9, 2, 2, 5]])
def test_it_pads_as_transformers_does(side: str, lengths: list[int]) -> None:
    """Random rows on both sides: the same tensors and lists."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    items = made(lengths, random.Random(seed))
    theirs = tokenizer()
    theirs.padding_side = side
    expected = pad_collate_fn(theirs, None)([dict(item) for item in items])
    found = Collation(theirs.pad_token_id, side)([make_chunk(item) for item in items])
    assert set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[key], value), key
            assert found[key].dtype == value.dtype
        else:
            assert found[key] == value


def test_a_chunk_knows_its_length_and_survives_a_pickle() -> None:
    """The worker process receives the same rows and keys."""
    chunk = make_chunk(made([5], random.Random(0))[0])
    again = pickle.loads(pickle.dumps(chunk))
    assert again.length == chunk.length == 5
    assert again.rows == chunk.rows
    assert again.keys == {
        "input_ids",
        "attention_mask",
        "special_tokens_mask",
        "offset_mapping",
        "sentence",
        "is_last",
    }


def test_values_other_than_integer_rows_are_unchanged() -> None:
    """Floats, for one, are left to the collate function of transformers."""
    scores = torch.zeros(1, 3)
    chunk = make_chunk({"input_ids": torch.ones(1, 3, dtype=torch.int64), "scores": scores})
    assert chunk.rest["scores"] is scores


def test_an_empty_input_makes_an_empty_batch() -> None:
    """The width is 0."""
    chunk = make_chunk({"input_ids": torch.zeros(1, 0, dtype=torch.int64)})
    assert Collation(0, "right")([chunk])["input_ids"].shape == (1, 0)


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ({"text": "the queue waits"}, {}),
        ({"text": "the queue", "text_pair": "waits for the server"}, {}),
        ({"text": "the queue waits for the server"}, {"truncation": True, "max_length": 4}),
        ({"text": "the queue"}, {"padding": "max_length", "max_length": 9}),
        # These options add values that are not lists of integers.
        ({"text": "the queue waits"}, {"return_offsets_mapping": True}),
        (
            {"text": "the queue waits for the server"},
            {"return_overflowing_tokens": True, "truncation": True, "max_length": 4},
        ),
        ({"text": ""}, {"add_special_tokens": False}),
    ],
)
def test_rows_in_lists_are_the_same_chunk(texts: dict[str, str], options: dict[str, Any]) -> None:
    """Lists and tensors give equal chunks, or the same error."""
    theirs = tokenizer()
    try:
        expected = make_chunk(theirs(**texts, return_tensors="pt", **options))
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            tokenize_to_lists(theirs, **texts, return_tensors="pt", **options)
        return
    found = make_chunk(tokenize_to_lists(theirs, **texts, return_tensors="pt", **options))
    assert found.rows == expected.rows
    assert {key: repr(value) for key, value in found.rest.items()} == {
        key: repr(value) for key, value in expected.rest.items()
    }
