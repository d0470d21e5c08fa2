"""Pipelines from the name of a task."""

from __future__ import annotations

from notebook_serve.models.pipeline_builder import build_pipeline


def test_the_model_that_ships_is_built() -> None:
    """``demo`` needs no model and no download."""
    assert type(build_pipeline("demo")).__name__ == "FillMaskPipeline"
