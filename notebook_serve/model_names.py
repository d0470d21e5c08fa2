"""A model's name on the command line: its folder, or its name on the hub; no download unasked."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import OptionError
from .pipeline_builder import DEMO

#: a model's name on the hub: its own, mostly with its owner's in front
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


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
    folder = Path(model)
    exists = bool(model) and folder.exists()
    if not exists and not HUB_NAME.fullmatch(model):
        raise OptionError(f"`model` is no folder that exists, nor a name on the hub: {model!r}")
    if exists and not any(folder.glob("*config.json")):
        raise OptionError(f"`model` must be a folder with a config.json, and {model!r} has none")
