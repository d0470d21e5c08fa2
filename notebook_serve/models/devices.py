"""Devices: pipelines are moved to one, and loaders may take it as a parameter."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from ..errors import OptionError
from .tasks import is_pipeline


def call_loader(loader: Callable[..., Any], device: str) -> Any:
    """Return the model of `loader` on `device`, which a loader may take as parameter ``device``."""
    if device and takes_device(loader):
        return loader(device=device)
    return move_to_device(loader(), device, own=True)


def takes_device(loader: Callable[..., Any]) -> bool:
    """Return True if a loader has a parameter ``device``."""
    try:
        return "device" in inspect.signature(loader).parameters
    except (TypeError, ValueError):
        return False


def check_loader(loader: Callable[..., Any], *, with_device: bool) -> None:
    """Reject a loader that needs arguments, other than a device if `with_device`."""
    try:
        signature = inspect.signature(loader)
    except (TypeError, ValueError):
        return  # its parameters are unknown
    given = {"device": "cpu"} if with_device and takes_device(loader) else {}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise OptionError(
            "loader must be a callable without arguments that returns a model; calling this one "
            f"fails ({error}); write loader=lambda: ..., or give a model instead of a loader"
        ) from None


def move_to_device(model: Any, device: str, *, own: bool) -> Any:
    """Return `model` on `device`; an empty device leaves it where it is.

    A model that is not the package's `own` is copied instead of changed. Raises `OptionError` for
    a model that is not a pipeline, because only its loader can place it.
    """
    if not device:
        return model
    if not is_pipeline(model):
        raise OptionError(
            f"a {type(model).__name__} cannot be moved to {device}; give a pipeline, or a loader "
            "with a parameter `device`"
        )
    import torch

    target = torch.device(device)
    if target == model.device:
        return model
    moved = model if own else copy.copy(model)
    moved.model = (model.model if own else copy.deepcopy(model.model)).to(target)
    moved.device = target
    return moved
