"""Collation: padding of preprocessed inputs into one batch.

Rows of token ids are arrays of integers that are copied into one buffer. Each tensor operation
releases the GIL, so filling a tensor row by row waits for the other threads once per row. With 16
short texts this took longer than a layer of the model.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

#: padding values other than 0; the padding value of `input_ids` is the pad token's id
PADDING = {"special_tokens_mask": 1, "p_mask": 1}


@dataclass(frozen=True, slots=True)
class Chunk:
    """The result of a pipeline's preprocess for one input, or for one part of it."""

    #: rows with one integer for each token: ``input_ids``, ``attention_mask`` and others
    rows: Mapping[str, array[int]]
    #: all other values, unchanged
    rest: Mapping[str, Any]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.rows["input_ids"])

    @property
    def keys(self) -> frozenset[str]:
        """Names of all rows and other values."""
        return frozenset(self.rows) | frozenset(self.rest)

    def __reduce__(self) -> Any:
        # Bytes pickle faster than arrays, each of which would call back from the pickler.
        return _from_bytes, ({key: row.tobytes() for key, row in self.rows.items()}, self.rest)


def _from_bytes(rows: Mapping[str, bytes], rest: Mapping[str, Any]) -> Chunk:
    return Chunk({key: array("q", row) for key, row in rows.items()}, rest)


def tokenize_to_lists(
    tokenizer: Callable[..., Any], *texts: Any, return_tensors: str = "pt", **options: Any
) -> Any:
    """Tokenise one text with rows as lists where a pipeline asks for tensors.

    Tensors, and arrays of their items, take longer to make than a short text to tokenise.
    """
    encoded = tokenizer(*texts, **options)
    if all(map(_is_list_of_integers, encoded.values())):
        return encoded
    return tokenizer(*texts, return_tensors=return_tensors, **options)


def make_chunk(encoded: Mapping[str, Any]) -> Chunk:
    """Convert the result of a preprocess to a `Chunk`.

    A row is an integer tensor of shape (1, tokens), or a list of integers.
    """
    rows, rest = {}, {}
    for key, value in encoded.items():
        if _is_list_of_integers(value):
            rows[key] = array("q", value)
        elif getattr(value, "ndim", 0) == 2 and len(value) == 1 and _is_integer_tensor(value):
            rows[key] = array("q", value[0].tolist())
        else:
            rest[key] = value
    return Chunk(rows, rest)


def _is_list_of_integers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) is int


def _is_integer_tensor(value: Any) -> bool:
    import torch

    return bool(value.dtype == torch.int64)


class Collation:
    """A collate function that pads chunks on one side with the model's padding id."""

    def __init__(self, padding_id: int, side: str) -> None:
        from transformers.pipelines.base import pad_collate_fn

        self.padding_id = padding_id
        self.side = side
        tokenizer = SimpleNamespace(pad_token_id=padding_id, padding_side=side)
        self._rest: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
        self._rest = pad_collate_fn(tokenizer, None)

    def __call__(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """Return the batch for the pipeline's forward; all chunks have the same keys."""
        batch = {
            key: self._rows([chunk.rows[key] for chunk in chunks], key) for key in chunks[0].rows
        }
        if chunks[0].rest:
            batch.update(self._rest([chunk.rest for chunk in chunks]))
        return batch

    def _rows(self, rows: Sequence[array[int]], key: str) -> Any:
        import torch

        width = max(map(len, rows))
        padding = self.padding_id if key == "input_ids" else PADDING.get(key, 0)
        numbers = array("q", [padding]) * (width * len(rows))
        for at, row in enumerate(rows):
            start = at * width + (width - len(row) if self.side == "left" else 0)
            numbers[start : start + len(row)] = row
        if not numbers:  # every input is empty
            return torch.zeros((len(rows), 0), dtype=torch.int64)
        return torch.frombuffer(numbers, dtype=torch.int64).view(len(rows), width)


def make_collation(pipe: Any, side: str) -> Collation:
    """Return a collation with the padding id of the pipeline's model or tokenizer."""
    candidates = (
        getattr(pipe.model.config, "pad_token_id", None),
        pipe.tokenizer.pad_token_id,
        pipe.tokenizer.eos_token_id,
    )
    usable = (value for value in candidates if isinstance(value, int) and value >= 0)
    return Collation(next(usable, 0), side)
