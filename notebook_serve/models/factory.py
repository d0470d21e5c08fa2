"""Models from what users serve: a pipeline, a function, an encoder or a `Model`."""

from __future__ import annotations

import sys
from typing import Any, cast

from ..errors import OptionError
from .base import Model
from .encoder import EncoderModel, is_encoder
from .functions.function_model import FunctionModel
from .stacked import StackedPipeline
from .tasks import TASKS
from .text import TEXT_PIPELINES, TextPipeline
from .unbatched import AnyPipeline
from .unservable import why_unservable


def as_model(model: Any) -> Model:
    """`model` as the engine needs it: a pipeline, a callable from list to list, or a `Model`."""
    if isinstance(model, Model):
        return model
    if is_pipeline(model):
        made: Any = _of_pipeline(model)
        made.source = source_of(model)
        return cast(Model, made)
    if is_encoder(model):
        return EncoderModel(model)
    wrong = why_unservable(model)
    if wrong:
        raise OptionError(wrong)
    if callable(model):
        return FunctionModel(model)
    raise OptionError(
        f"{type(model).__name__} is neither a transformers pipeline nor a callable from a list of "
        "inputs to a list of outputs; write serve(pipe) or serve(function)"
    )


def _of_pipeline(pipe: Any) -> Model:
    pipe.model.eval()  # made from a bare model, a pipeline is left in training mode
    if not _is_their_own(type(pipe)):
        return AnyPipeline(pipe)
    if type(pipe).__name__ in TEXT_PIPELINES:
        return TextPipeline(pipe)
    if StackedPipeline.fits(pipe):
        return StackedPipeline(pipe)
    known = TASKS.get(pipe.task)
    return AnyPipeline(pipe, known.why) if known else AnyPipeline(pipe)


def source_of(pipe: Any) -> str:
    """Return where the weights of a pipeline come from: a folder, or a name and its revision."""
    config = getattr(pipe.model, "config", None)
    name = str(getattr(pipe.model, "name_or_path", "") or getattr(config, "_name_or_path", ""))
    revision = getattr(config, "_commit_hash", None)
    return f"{name}, revision {revision[:12]}" if revision else name


def is_pipeline(model: Any) -> bool:
    """Whether `model` is a transformers pipeline; imports nothing."""
    base = sys.modules.get("transformers.pipelines.base")
    return base is not None and isinstance(model, base.Pipeline)


def is_own_pipeline(model: Any) -> bool:
    """Whether `model` is a pipeline of the library's, and not of a subclass of somebody else's."""
    return is_pipeline(model) and _is_their_own(type(model))


def _is_their_own(kind: type) -> bool:
    # A subclass of the user's may do anything; only the original's steps are known.
    return kind.__module__.startswith("transformers.pipelines.")
