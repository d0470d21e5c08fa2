"""A pipeline of one's own: the same weights, and a tokenizer that no other thread uses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidInput, ServeError


def private_copy(pipe: Any) -> Any:
    """A pipeline with the same weights and a tokenizer (and processors) of its own."""
    mine = copy.copy(pipe)
    parts = ("tokenizer", "processor", "feature_extractor", "image_processor", "video_processor")
    # One memo, so that parts that share an object (a processor its tokenizer) still do.
    memo: dict[int, Any] = {}
    for part in parts:
        if getattr(pipe, part, None) is not None:
            setattr(mine, part, copy.deepcopy(getattr(pipe, part), memo))
    return mine


def resolve(pipe: Any, parameters: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Keywords for preprocess, forward and postprocess: the pipeline's own, then a request's."""
    steps = pipe._sanitize_parameters(**json.loads(parameters or "{}"))
    own = (pipe._preprocess_params, pipe._forward_params, pipe._postprocess_params)
    preprocess, forward, postprocess = (
        {**mine, **asked} for mine, asked in zip(own, steps, strict=True)
    )
    return preprocess, forward, postprocess


def is_message(value: Any) -> bool:
    """Whether `value` is one message of a chat."""
    return isinstance(value, dict) and "role" in value and "content" in value


@contextmanager
def rejecting(task: str) -> Iterator[None]:
    """What goes wrong inside is the input's fault, except want of memory."""
    try:
        yield
    except (ServeError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"{task} rejects the input: {error}") from error
