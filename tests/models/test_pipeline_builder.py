"""Pipelines from a task name, and the arguments of `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notebook_serve import LoaderFailed, OptionError, demo
from notebook_serve.models.pipeline_builder import build_pipeline, choose_model


def test_the_model_that_ships_is_built() -> None:
    """``demo`` needs no model and no download."""
    assert type(build_pipeline("demo")).__name__ == "FillMaskPipeline"


def load() -> Any:
    return len


def test_a_model_or_a_loader_is_passed_on() -> None:
    """Only text is looked up."""
    assert choose_model(len, None, None, "thread") == (len, None)
    assert choose_model(None, len, None, "thread") == (len, None)
    assert choose_model(None, None, load, "process") == (None, load)


def test_a_worker_process_builds_the_pipeline_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """The notebook gets a loader and prints the source of the weights."""
    model, loader = choose_model("fill-mask", demo.MODEL_FOLDER, None, "process")

    assert model is None
    assert loader is not None
    assert capsys.readouterr().out == (
        f"notebook_serve: the worker loads fill-mask from {demo.MODEL_FOLDER}\n"
    )
    with demo.no_progress_bars():
        assert type(loader()).__name__ == "FillMaskPipeline"


def test_a_folder_that_does_not_load_is_a_failed_loader(tmp_path: Path) -> None:
    """The error names the task and the folder, and has no chain of other errors."""
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(LoaderFailed, match="loading fill-mask from '.*' failed: ") as caught:
        choose_model("fill-mask", tmp_path, None, "thread")
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("served", "model", "loader", "advice"),
    [
        ("fill-mask", "x/y", len, "give either a loader, or a task and a model"),
        (len, len, None, "give one model"),
        (None, "x/y", None, "'x/y' is not a task; to serve a model write serve"),
        ("fill-mask", len, None, "takes a folder or a name, not builtin_function_or_method"),
        ("fill-mask", None, None, "which model for fill-mask"),
    ],
    ids=["loader", "two", "no task", "object", "no model"],
)
def test_unclear_arguments_are_rejected_before_anything_loads(
    served: Any, model: Any, loader: Any, advice: str
) -> None:
    """The error holds the line to write."""
    with pytest.raises(OptionError, match=advice):
        choose_model(served, model, loader, "thread")
