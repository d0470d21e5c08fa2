"""A transformers pipeline from the name of a task: for the command line, and for `serve`."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from .errors import OptionError

#: the task name that stands for the model that ships with the package
DEMO = "demo"
#: a model's name on the hub: its own, mostly with its owner's in front
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


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


def default_model(task: str) -> str:
    """Return the name of the model that transformers itself takes for `task`; empty for none."""
    from transformers.pipelines import PIPELINE_REGISTRY

    _, about, _ = PIPELINE_REGISTRY.check_task(task)
    named = about.get("default", {}).get("model", "")
    named = named.get("pt", "") if isinstance(named, dict) else named
    return str(named if isinstance(named, str) else named[0])


def check_named(task: str, model: str | None) -> None:
    """Raise `OptionError` unless it is said which model is to be served, and a folder exists.

    Nothing is downloaded by surprise: a model of the hub has to be named.
    """
    if task == DEMO:
        if model is not None:
            raise OptionError(
                f"`model` is not for {DEMO}, which is the model that ships; leave it out"
            )
        return
    if model is None:
        needs = f"{task} needs a `model`: its folder, or its name on the hub"
        usual = default_model(task)
        if usual:
            needs += (
                f"; transformers itself would take model={usual!r}, and download it unless it is "
                "in the cache"
            )
        raise OptionError(needs)
    folder = Path(model).expanduser()
    if not folder.exists() and not HUB_NAME.fullmatch(model):
        raise OptionError(f"`model` is no folder that exists, nor a name on the hub: {model!r}")
    if folder.exists() and not (folder / "config.json").is_file():
        raise OptionError(f"`model` must be a folder with a config.json, and {model!r} has none")
