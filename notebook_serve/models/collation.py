"""Collation: what was made ready of single inputs, padded and put together into one batch.

Rows of token ids are kept as arrays of numbers and copied into one buffer. Each operation on a
tensor gives up the interpreter's lock, so to fill a tensor row by row means to wait for the other
threads once per row: with 16 short texts that took longer than a layer of the model.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

#: what padding is told by in a row, where that is not 0; that of `input_ids` is the tokenizer's
PADDING = {"special_tokens_mask": 1, "p_mask": 1}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a pipeline's preprocess made of one input, or of one part of it."""

    #: rows of whole numbers, one for each token: ``input_ids``, ``attention_mask`` and the like
    rows: Mapping[str, array[int]]
    #: everything else, as preprocess made it
    rest: Mapping[str, Any]

    @property
    def length(self) -> int:
        """Its tokens."""
        return len(self.rows["input_ids"])

    @property
    def keys(self) -> frozenset[str]:
        """What it is made of."""
        return frozenset(self.rows) | frozenset(self.rest)

    def __reduce__(self) -> Any:
        # An array of its own would each time be a call back from the pickler.
        return _from_bytes, ({key: row.tobytes() for key, row in self.rows.items()}, self.rest)


def _from_bytes(rows: Mapping[str, bytes], rest: Mapping[str, Any]) -> Chunk:
    return Chunk({key: array("q", row) for key, row in rows.items()}, rest)


def in_lists(
    tokenizer: Callable[..., Any], *texts: Any, return_tensors: str = "pt", **options: Any
) -> Any:
    """What `tokenizer` makes of one text, but its rows as lists where a pipeline wants tensors.

    To make tensors, and arrays of them, takes longer than to tokenise a short text.
    """
    made = tokenizer(*texts, **options)
    if all(map(_is_list_of_whole, made.values())):
        return made
    return tokenizer(*texts, return_tensors=return_tensors, **options)


def as_chunk(made: Mapping[str, Any]) -> Chunk:
    """`made`, with its rows as arrays.

    A row is a tensor of whole numbers of shape (1, tokens), or a list of them.
    """
    rows, rest = {}, {}
    for key, value in made.items():
        if _is_list_of_whole(value):
            rows[key] = array("q", value)
        elif getattr(value, "ndim", 0) == 2 and len(value) == 1 and _is_whole(value):
            rows[key] = array("q", value[0].tolist())
        else:
            rest[key] = value
    return Chunk(rows, rest)


def _is_list_of_whole(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) is int


def _is_whole(value: Any) -> bool:
    import torch

    return bool(value.dtype == torch.int64)


class Collation:
    """Puts chunks under each other, padded on one side with what the model takes for padding."""

    def __init__(self, padding_id: int, side: str) -> None:
        from transformers.pipelines.base import pad_collate_fn

        self.padding_id = padding_id
        self.side = side
        alike = SimpleNamespace(pad_token_id=padding_id, padding_side=side)
        self._rest: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
        self._rest = pad_collate_fn(alike, None)

    def __call__(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """The batch that the pipeline's forward takes; all chunks have the same keys."""
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
        if not numbers:  # nothing was left of the input
            return torch.zeros((len(rows), 0), dtype=torch.int64)
        return torch.frombuffer(numbers, dtype=torch.int64).view(len(rows), width)


def collation_for(pipe: Any, side: str) -> Collation:
    """A collation that pads as the pipeline's model and tokenizer understand it."""
    candidates = (
        getattr(pipe.model.config, "pad_token_id", None),
        pipe.tokenizer.pad_token_id,
        pipe.tokenizer.eos_token_id,
    )
    usable = (value for value in candidates if isinstance(value, int) and value >= 0)
    return Collation(next(usable, 0), side)
