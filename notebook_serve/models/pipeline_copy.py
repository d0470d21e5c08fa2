"""Copies of a pipeline for one thread each: shared weights, separate tokenizers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidInput, ServeError


def copy_for_thread(pipe: Any) -> Any:
    """Copy a pipeline with its tokenizer and processors; share the weights."""
    copied = copy.copy(pipe)
    parts = ("tokenizer", "processor", "feature_extractor", "image_processor", "video_processor")
    # One memo keeps shared objects shared, such as the tokenizer inside a processor.
    memo: dict[int, Any] = {}
    for part in parts:
        if getattr(pipe, part, None) is not None:
            setattr(copied, part, copy.deepcopy(getattr(pipe, part), memo))
    return copied


def resolve_parameters(
    pipe: Any, parameters: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return keywords for preprocess, forward and postprocess: defaults, then a request's own."""
    steps = pipe._sanitize_parameters(**json.loads(parameters or "{}"))
    defaults = (pipe._preprocess_params, pipe._forward_params, pipe._postprocess_params)
    preprocess, forward, postprocess = (
        {**default, **given} for default, given in zip(defaults, steps, strict=True)
    )
    return preprocess, forward, postprocess


def is_message(value: Any) -> bool:
    """Return True for one message of a chat."""
    return isinstance(value, dict) and "role" in value and "content" in value


@contextmanager
def rejecting(task: str) -> Iterator[None]:
    """Convert errors to `InvalidInput`, except `MemoryError` and errors of this package."""
    try:
        yield
    except (ServeError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"{task} rejects the input: {error}") from error
