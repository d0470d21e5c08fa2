"""Encoders: objects with a method ``encode``, such as a SentenceTransformer."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput
from .base import Prepared, check_one_input, group_name
from .functions.ownership import own
from .parameters import Parameters

#: parameters of ``encode`` that requests may give
OFFERED = ("prompt_name", "prompt", "normalize_embeddings", "truncate_dim", "task")


def is_encoder(model: Any) -> bool:
    """Return True for an object with an ``encode`` that turns texts into vectors.

    An object that also has ``decode`` is a tokenizer or a string. A torch module without a
    tokenizer may have an ``encode`` for tensors.
    """
    if isinstance(model, (type, str)) or hasattr(model, "decode"):
        return False
    if callable(model) and not (hasattr(model, "tokenizer") or hasattr(model, "tokenize")):
        return False
    return callable(getattr(model, "encode", None))


class EncoderModel:
    """A model that calls ``encode`` with the texts of a batch; answers equal ``encode(text)``.

    If the object has a tokenizer, a copy of it counts the tokens of each text, so that policies can
    group texts of similar length.
    """

    task = "text embedding"
    accepts = frozenset({"text", "json"})
    batched = True
    why = "encode takes a list of texts"

    def __init__(self, encoder: Any) -> None:
        if hasattr(encoder, "eval"):
            encoder.eval()
        self.name = f"{self.task}, {type(encoder).__name__}"
        self._encode = encoder.encode
        names = _names(encoder.encode)
        self._quiet = {"show_progress_bar": False} if "show_progress_bar" in names else {}
        self._sized = "batch_size" in names
        offered = [name for name in OFFERED if name in names]
        self._parameters = Parameters(self.name, dict.fromkeys(offered, _accept_anything))
        # The worker thread uses the original, and a tokenizer is not thread-safe.
        self._tokenizer = copy.deepcopy(_tokenizer_of(encoder))
        self._longest = getattr(encoder, "max_seq_length", None)
        self.prepares = self._tokenizer is not None

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Return the texts of a list; None for a single text."""
        if isinstance(inputs, list):
            return inputs
        check_one_input(inputs)
        return None

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Check one text and count its tokens."""
        self._parameters.check(parameters)
        if not isinstance(inputs, str):
            raise InvalidInput(f"{self.name} takes a string, not {type(inputs).__name__}")
        return Prepared(inputs, self._tokens(inputs), group_name(parameters), parameters)

    def _tokens(self, text: str) -> int:
        if self._tokenizer is None:
            return 1
        count = len(self._tokenizer(text)["input_ids"])
        return min(count, self._longest) if isinstance(self._longest, int) else count

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Encode all texts in one call."""
        size = {"batch_size": len(items)} if self._sized else {}
        texts = [item.inputs for item in items]
        vectors = self._encode(texts, **self._quiet, **size, **items[0].parameters)
        return [own(vector) for vector in vectors]

    def finish(self, item: Prepared, output: Any) -> Any:
        """Return the vector unchanged."""
        return output


def _accept_anything(value: Any) -> str:
    return ""


def _names(encode: Any) -> set[str]:
    try:
        return set(inspect.signature(encode).parameters)
    except (TypeError, ValueError):
        return set()


def _tokenizer_of(encoder: Any) -> Any:
    """Return the tokenizer of an encoder if it is one of transformers, else None."""
    tokenizer = getattr(encoder, "tokenizer", None)
    kinds = {base.__name__ for base in type(tokenizer).__mro__}
    return tokenizer if "PreTrainedTokenizerBase" in kinds else None
