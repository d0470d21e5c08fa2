"""Devices: loaders with a parameter, and pipelines that are moved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from notebook_serve import OptionError
from notebook_serve.models.devices import (
    call_loader,
    check_loader,
    move_to_device,
    takes_device,
)

from ..helpers import small_models


def load() -> Any:
    return small_models.pipeline("fill-mask")


def load_on(device: str = "cpu") -> tuple[str, str]:
    return "model", device


def test_a_loader_with_the_parameter_receives_the_device() -> None:
    """Its result is not moved; without a device the loader uses its default."""
    assert takes_device(load_on)
    assert call_loader(load_on, "meta") == ("model", "meta")
    assert call_loader(load_on, "") == ("model", "cpu")


def test_a_builtin_without_a_signature_takes_no_device() -> None:
    """Nothing is known of its parameters, so it is called without any."""
    assert not takes_device(dict)
    check_loader(dict, with_device=True)


def test_the_pipeline_of_another_loader_is_moved_itself() -> None:
    """Nobody else uses it, so the weights are not copied."""
    made: list[Any] = []

    def remember() -> Any:
        made.append(load())
        return made[0]

    moved = call_loader(remember, "meta")

    assert moved is made[0]
    assert moved.device == moved.model.device == torch.device("meta")


def test_a_pipeline_of_the_user_is_copied() -> None:
    """Its own weights stay where they are; on the right device it is used as it is."""
    pipe = load()
    moved = move_to_device(pipe, "meta", own=False)

    assert (moved.device.type, moved.model.device.type) == ("meta", "meta")
    assert (pipe.device.type, pipe.model.device.type) == ("cpu", "cpu")
    assert move_to_device(pipe, "cpu", own=False) is pipe
    assert move_to_device(pipe, "", own=False) is pipe


def test_only_a_pipeline_can_be_moved() -> None:
    """The error names the type and the two ways out."""
    with pytest.raises(OptionError, match="a function cannot be moved to cpu; give a pipeline, or"):
        move_to_device(load, "cpu", own=True)


def test_a_loader_is_checked_before_it_runs() -> None:
    """A device counts as an argument only if one will be passed."""

    def required(device: str) -> str:
        return device

    def other(texts: list[str]) -> list[str]:
        return texts

    check_loader(load, with_device=True)
    check_loader(required, with_device=True)
    for loader, with_device in ((required, False), (other, True), (other, False)):
        with pytest.raises(OptionError, match="loader must be a callable without arguments"):
            check_loader(loader, with_device=with_device)
