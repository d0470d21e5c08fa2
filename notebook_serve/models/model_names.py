"""Checks of task and model names, so that a typo downloads nothing."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from ..errors import OptionError

#: the task name of the model that ships with the package
DEMO = "demo"
#: a model's name on the hub, usually OWNER/NAME
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


# -- tasks --------------------------------------------------------------------------------


def check_task(task: str) -> None:
    """Raise `OptionError`, with the nearest names, if there is no such task."""
    known = task_names()
    if task in known:
        return
    near = near_tasks(task)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the tasks are {', '.join(known)}"
    raise OptionError(f"there is no task {task!r}; {hint}")


def near_tasks(task: str) -> list[str]:
    """Return at most three task names with the most similar spelling to `task`."""
    return difflib.get_close_matches(task, task_names(), n=3, cutoff=0.5)


def task_names() -> list[str]:
    """Return the names of all tasks, aliases and ``demo`` included, in alphabetical order."""
    from transformers.pipelines import PIPELINE_REGISTRY

    return sorted({DEMO, *PIPELINE_REGISTRY.get_supported_tasks()})


# -- models -------------------------------------------------------------------------------


def default_model(task: str) -> str:
    """Return the name of transformers' default model for `task`; empty if there is none."""
    from transformers.pipelines import PIPELINE_REGISTRY

    _, about, _ = PIPELINE_REGISTRY.check_task(task)
    named = about.get("default", {}).get("model", "")
    named = named.get("pt", "") if isinstance(named, dict) else named
    return str(named if isinstance(named, str) else named[0])


def check_source(model: str) -> str:
    """Return a model's folder, or its name on the hub. Raises `OptionError` for any other text.

    A folder that does not exist is rejected, because transformers would look for it on the hub.
    """
    folder = Path(model).expanduser()
    exists = bool(model.strip()) and folder.exists()
    if not exists and not HUB_NAME.fullmatch(model):
        raise OptionError(
            f"`model` must be a folder that exists or a name on the hub, got {model!r} "
            f"(current folder: {Path.cwd()})"
        )
    if exists and not any(folder.glob("*config.json")):
        raise OptionError(f"`model` must be a folder with a config.json, and {model!r} has none")
    return str(folder) if exists else model


def check_named(task: str, model: str | None) -> None:
    """Raise `OptionError` unless `model` names the model to serve; a folder must exist.

    Without a name transformers would download its default model.
    """
    if task == DEMO:
        if model is not None:
            raise OptionError(
                f"`model` must be left out for {DEMO}, which is the model that ships, got {model!r}"
            )
        return
    if model is None:
        needs = f"{task} needs a `model`: its folder, or its name on the hub"
        usual = default_model(task)
        if usual:
            needs += (
                f"; transformers would use model={usual!r}, and download it unless it is cached"
            )
        raise OptionError(needs)
    check_source(model)
