"""A transformers pipeline from the name of a task: for the command line, and for `serve`."""

from __future__ import annotations

import difflib
from typing import Any

from .errors import OptionError

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


def check_task(task: str) -> None:
    """Raise `OptionError`, with the nearest names, if there is no such task."""
    known = task_names()
    if task in known:
        return
    near = difflib.get_close_matches(task, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"tasks are {', '.join(known)}"
    raise OptionError(f"there is no task {task!r}; {hint}")


def task_names() -> list[str]:
    """Return the names of all tasks, aliases and ``demo`` included, in alphabetical order."""
    from transformers.pipelines import PIPELINE_REGISTRY

    return sorted({DEMO, *PIPELINE_REGISTRY.get_supported_tasks()})
