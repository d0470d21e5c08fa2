"""The choice of a model class for a pipeline, a function or an encoder."""

from __future__ import annotations

import pytest

from notebook_serve import (
    OptionError,
)
from notebook_serve.models.factory import as_model

from ..helpers import small_models

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_a_model_left_in_training_mode_is_put_right() -> None:
    """pipeline(model=object) leaves dropout on; served, the model is in eval mode."""
    pipe = small_models.pipeline("text-classification")
    pipe.model.train()
    as_model(pipe)
    assert not pipe.model.training


@pytest.mark.parametrize("thing", [3, "fill-mask", object()])
def test_what_is_no_model(thing: object) -> None:
    """Neither a pipeline nor a callable: refused in the cell, saying what is wanted."""
    with pytest.raises(OptionError, match="neither a transformers pipeline nor a callable"):
        as_model(thing)
