"""Models from what users serve: a pipeline, a function, an encoder or a `Model`."""

from __future__ import annotations

from typing import Any, cast

from ..errors import OptionError
from .base import Model
from .encoder import EncoderModel, is_encoder
from .functions.function_model import FunctionModel
from .stacked import StackedPipeline
from .tasks import TASKS, is_pipeline
from .text import TEXT_PIPELINES, TextPipeline
from .unbatched import AnyPipeline
from .unservable import why_unservable


def as_model(model: Any) -> Model:
    """Wrap a pipeline, an encoder or a batch function as a `Model`; return a `Model` as it is.

    Raises `OptionError` for any other object, with a line of code that works where one is known.
    """
    if isinstance(model, Model):
        return model
    if is_pipeline(model):
        wrapped: Any = _wrap_pipeline(model)
        wrapped.source = source_of(model)
        return cast(Model, wrapped)
    if is_encoder(model):
        return EncoderModel(model)
    advice = why_unservable(model)
    if advice:
        raise OptionError(advice)
    if callable(model):
        return FunctionModel(model)
    raise OptionError(
        f"{type(model).__name__} is neither a transformers pipeline nor a callable from a list of "
        "inputs to a list of outputs; write serve(pipe) or serve(function)"
    )


def _wrap_pipeline(pipe: Any) -> Model:
    pipe.model.eval()  # a pipeline built from a bare model is still in training mode
    if not _is_of_transformers(type(pipe)):
        return AnyPipeline(pipe)
    if type(pipe).__name__ in TEXT_PIPELINES:
        return TextPipeline(pipe)
    if StackedPipeline.fits(pipe):
        return StackedPipeline(pipe)
    known = TASKS.get(pipe.task)
    return AnyPipeline(pipe, known.why) if known else AnyPipeline(pipe)


def source_of(pipe: Any) -> str:
    """Return the origin of a pipeline's weights: a folder, or a name and its revision."""
    config = getattr(pipe.model, "config", None)
    name = str(getattr(pipe.model, "name_or_path", "") or getattr(config, "_name_or_path", ""))
    revision = getattr(config, "_commit_hash", None)
    return f"{name}, revision {revision[:12]}" if revision else name


def is_own_pipeline(model: Any) -> bool:
    """Return True for a pipeline of a class in transformers, not of a subclass elsewhere."""
    return is_pipeline(model) and _is_of_transformers(type(model))


def _is_of_transformers(kind: type) -> bool:
    # A subclass may override any step; only the steps of the original class are known.
    return kind.__module__.startswith("transformers.pipelines.")
