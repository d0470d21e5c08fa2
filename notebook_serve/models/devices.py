"""Where a model computes: pipelines are moved, and loaders told."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from ..errors import OptionError
from .factory import is_pipeline


def placed(loader: Callable[..., Any], device: str) -> Any:
    """What `loader` returns, on `device`: it is told, if it has a parameter of that name."""
    if device and takes_device(loader):
        return loader(device=device)
    return moved(loader(), device, own=True)


def takes_device(loader: Callable[..., Any]) -> bool:
    """Whether a loader has a parameter ``device``."""
    try:
        return "device" in inspect.signature(loader).parameters
    except (TypeError, ValueError):
        return False


def check_loader(loader: Callable[..., Any], *, told: bool) -> None:
    """Refuse a loader that cannot be called as it will be: `told` its device, or nothing at all."""
    try:
        signature = inspect.signature(loader)
    except (TypeError, ValueError):
        return  # it says nothing of itself
    given = {"device": "cpu"} if told and takes_device(loader) else {}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise OptionError(
            f"loader is a callable of no arguments that returns a model, and this one is called "
            f"otherwise ({error}); write loader=lambda: ..., or give a model itself without loader="
        ) from None


def moved(model: Any, device: str, *, own: bool) -> Any:
    """`model` on `device`, or as it is without one; only where it is our `own` is it changed.

    Raises `OptionError` for what is no pipeline: only its loader can put it anywhere.
    """
    if not device:
        return model
    if not is_pipeline(model):
        raise OptionError(
            f"a {type(model).__name__} cannot be moved to {device}; give a pipeline, or a loader "
            "with a parameter `device`"
        )
    import torch

    where = torch.device(device)
    if where == model.device:
        return model
    there = model if own else copy.copy(model)
    there.model = (model.model if own else copy.deepcopy(model.model)).to(where)
    there.device = where
    return there
