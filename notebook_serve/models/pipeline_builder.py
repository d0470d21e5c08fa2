"""Building of pipelines from a task name, for `serve` and the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import LoaderFailed, OptionError
from .factory import source_of
from .model_names import DEMO, check_source, check_task, default_model, near_tasks, task_names
from .unservable import task_of_class


def build_pipeline(task: str, model: str | None = None, **options: Any) -> Any:
    """Build a pipeline for `task`; ``demo`` is the model that ships with the package.

    `model` is a folder or a name on the hub; `options` are those of ``transformers.pipeline``,
    such as ``dtype`` and ``device``. Raises `OptionError` for a task that does not exist.
    """
    check_task(task)
    if task == DEMO:
        from ..demo import pipeline as demo_pipeline

        return demo_pipeline()
    from transformers import pipeline

    return pipeline(task, model=model, **options)


# -- the arguments of `serve` ------------------------------------------------------------------

#: a model or a loader, and None for the other
Chosen = tuple[Any, Callable[[], Any] | None]


def choose_model(served: Any, model: Any, loader: Any, worker: str) -> Chosen:
    """Return the model or the loader for the arguments of `serve` and `add`.

    A task with a folder or name builds a pipeline here, or in the worker process. A task without a
    model raises `OptionError` with a line that works, so that no default model is downloaded.
    """
    if _is_text(served):
        if loader is not None:
            raise OptionError("give either a loader, or a task and a model")
        return _build_for_task(os.fspath(served), model, worker)
    if served is not None and model is not None:
        raise OptionError("give one model: serve(model), or serve('TASK', model='FOLDER OR NAME')")
    if _is_text(model):
        raise OptionError(_task_is_missing(os.fspath(model)))
    return (model if served is None else served), loader


def _is_text(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike))


def _build_for_task(task: str, model: Any, worker: str) -> Chosen:
    """Return the pipeline of a task, or its loader for a worker process."""
    if model is None and task != DEMO:
        raise OptionError(_model_is_missing(task))
    check_task(task)
    if not (model is None or _is_text(model)):
        raise OptionError(
            f"serve({task!r}, model=...) takes a folder or a name, not {type(model).__name__}; "
            f"write serve(pipeline({task!r}, model=model, tokenizer=tokenizer))"
        )
    source = None if model is None else check_source(os.fspath(model))
    make = partial(build_pipeline, task, source)
    if worker == "process":
        _announce(f"the worker loads {task} from {source or 'the model that ships'}")
        return None, make
    try:
        pipe = make()
    except Exception as error:
        raise LoaderFailed(f"loading {task} from {source!r} failed: {error}") from None
    _announce(f"loaded {task}: {type(pipe.model).__name__} from {source_of(pipe)}")
    return pipe, None


def _model_is_missing(served: str) -> str:
    if served in task_names():
        standard = default_model(served)
        name = standard or "FOLDER OR NAME"
        fetched = f"; without one, transformers would download {standard}" if standard else ""
        return f"which model for {served}? write serve({served!r}, model={name!r}){fetched}"
    if not Path(served).expanduser().exists() and near_tasks(served):
        check_task(served)
    return _task_is_missing(served)


def _task_is_missing(source: str) -> str:
    if not source.strip():
        return f"{source!r} is not a task; write serve('TASK', model='FOLDER OR NAME')"
    folder = Path(source).expanduser()
    task = _task_of_folder(folder)
    if (folder / "modules.json").exists():
        other = f"serve(SentenceTransformer({source!r})) for a vector of each text"
    else:
        other = f"serve(pipeline({task!r}, model={source!r})) for more options"
    line = f"serve({task!r}, model={source!r})"
    return f"{source!r} is not a task; to serve a model write {line}, or {other}"


def _task_of_folder(folder: Path) -> str:
    """Return the task of the model in a folder; ``TASK`` if it is unknown."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return task_of_class(str(config["architectures"][0]))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return "TASK"


def _announce(text: str) -> None:
    """Print in the cell which model is loaded for the name that the caller gave."""
    print(f"notebook_serve: {text}", flush=True)  # noqa: T201 - it belongs to the cell's output
