"""A transformers pipeline from the name of a task: for the command line, and for `serve`."""

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
    """Return a new pipeline for `task`, or the model that ships with the package for ``demo``.

    `model` is a folder or a name on the hub; `options` are those of ``transformers.pipeline``,
    such as ``dtype`` and ``device``. Raises `OptionError` for a task that does not exist.
    """
    check_task(task)
    if task == DEMO:
        from ..demo import pipeline as shipped

        return shipped()
    from transformers import pipeline

    return pipeline(task, model=model, **options)


# -- what `serve` is given --------------------------------------------------------------------

Chosen = tuple[Any, Callable[[], Any] | None]


def choose_model(served: Any, model: Any, loader: Any, worker: str) -> Chosen:
    """Return the model or the loader that `serve` and `add` are asked for.

    A task and a folder or name make a pipeline here, or in the worker's process. Nothing is fetched
    that was not named: a task without a model raises `OptionError` with the line to write.
    """
    if _is_text(served):
        if loader is not None:
            raise OptionError("give a loader, or a task and a model, and not both")
        return _of_task(os.fspath(served), model, worker)
    if served is not None and model is not None:
        raise OptionError("give one model: serve(model), or serve('TASK', model='FOLDER OR NAME')")
    if _is_text(model):
        raise OptionError(_task_is_missing(os.fspath(model)))
    return (model if served is None else served), loader


def _is_text(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike))


def _of_task(task: str, model: Any, worker: str) -> Chosen:
    """Return the pipeline of a task, or what makes it in a process."""
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
        _tell(f"the worker loads {task} from {source or 'the model that ships'}")
        return None, make
    try:
        pipe = make()
    except Exception as error:
        raise LoaderFailed(f"no pipeline for {task} could be made of {source!r}: {error}") from None
    _tell(f"loaded {task}: {type(pipe.model).__name__} from {source_of(pipe)}")
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
        return f"{source!r} is no task; write serve('TASK', model='FOLDER OR NAME')"
    folder = Path(source).expanduser()
    task = _task_of_folder(folder)
    if (folder / "modules.json").exists():
        other = f"serve(SentenceTransformer({source!r})) for a vector of each text"
    else:
        other = f"serve(pipeline({task!r}, model={source!r})) for more options"
    return f"{source!r} is no task; for a model write serve({task!r}, model={source!r}), or {other}"


def _task_of_folder(folder: Path) -> str:
    """Return the task that a model's folder is for; ``TASK`` where that is not known."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return task_of_class(str(config["architectures"][0]))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return "TASK"


def _tell(text: str) -> None:
    """Say in the cell what is served, which the caller has only named."""
    print(f"notebook_serve: {text}", flush=True)  # noqa: T201 - it belongs to the cell's output
