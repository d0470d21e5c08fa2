"""A transformers pipeline from the name of a task: for the command line, and for `serve`."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .errors import LoaderFailed, OptionError
from .pipelines import source_of
from .unservable import task_of_class

#: the task name that stands for the model that ships with the package
DEMO = "demo"


def build_pipeline(task: str, model: str | None = None, **options: Any) -> Any:
    """Return a new pipeline for `task`, or the model that ships with the package for ``demo``.

    `model` is a folder or a name on the hub; `options` are those of ``transformers.pipeline``,
    such as ``dtype`` and ``device``. Raises `OptionError` for a task that does not exist.
    """
    check_task(task)
    if task == DEMO:
        from .demo import pipeline as shipped

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
    source = None if model is None else _checked_source(os.fspath(model))
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


def _checked_source(source: str) -> str:
    """Return a model's folder or name; refuse a folder that is not there, and no name on the hub.

    A library would look for such a name on the hub.
    """
    local = source.startswith((".", "/", "~")) or (os.sep != "/" and os.sep in source)
    folder = Path(source).expanduser()
    if not source.strip():
        raise OptionError("model must be a folder or a name on the hub, got an empty text")
    if folder.is_dir():
        return str(folder)
    if local or source.count("/") > 1:
        raise OptionError(f"there is no folder {source!r} (seen from {Path.cwd()})")
    return source


def _model_is_missing(served: str) -> str:
    if served in task_names():
        standard = _standard_model(served)
        name = standard or "FOLDER OR NAME"
        fetched = f"; without one, transformers would download {standard}" if standard else ""
        return f"which model for {served}? write serve({served!r}, model={name!r}){fetched}"
    if not Path(served).expanduser().exists() and _near(served):
        check_task(served)
    return _task_is_missing(served)


def _task_is_missing(source: str) -> str:
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


def _standard_model(task: str) -> str:
    """Return the name of the model that transformers takes where none is given."""
    from transformers.pipelines import PIPELINE_REGISTRY

    try:
        _, about, _ = PIPELINE_REGISTRY.check_task(task)
        return str(about["default"]["model"][0])
    except (KeyError, IndexError, TypeError):
        return ""


def _tell(text: str) -> None:
    """Say in the cell what is served, which the caller has only named."""
    print(f"notebook_serve: {text}", flush=True)  # noqa: T201 - it belongs to the cell's output


def check_task(task: str) -> None:
    """Raise `OptionError`, with the nearest names, if there is no such task."""
    known = task_names()
    if task in known:
        return
    near = _near(task)
    hint = f"did you mean {' or '.join(near)}?" if near else f"tasks are {', '.join(known)}"
    raise OptionError(f"there is no task {task!r}; {hint}")


def _near(task: str) -> list[str]:
    return difflib.get_close_matches(task, task_names(), n=3, cutoff=0.5)


def task_names() -> list[str]:
    """Return the names of all tasks, aliases and ``demo`` included, in alphabetical order."""
    from transformers.pipelines import PIPELINE_REGISTRY

    return sorted({DEMO, *PIPELINE_REGISTRY.get_supported_tasks()})
