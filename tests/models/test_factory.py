"""The choice of a model class for a pipeline, a function or an encoder."""

from __future__ import annotations

import pytest

from notebook_serve import OptionError, ServedModel, demo
from notebook_serve.models.encoder import EncoderModel
from notebook_serve.models.factory import as_model, is_own_pipeline, source_of
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.models.stacked import StackedPipeline
from notebook_serve.models.tasks import is_pipeline
from notebook_serve.models.text import TextPipeline
from notebook_serve.models.unbatched import AnyPipeline

from ..helpers import small_models
from ..helpers.task_cases import BY_TASK

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_a_model_in_training_mode_is_switched_to_eval_mode() -> None:
    """pipeline(model=object) leaves dropout on."""
    pipe = small_models.pipeline("text-classification")
    pipe.model.train()
    as_model(pipe)
    assert not pipe.model.training


@pytest.mark.parametrize("thing", [3, "fill-mask", object()])
def test_other_objects_are_not_models(thing: object) -> None:
    """The error names what can be served."""
    with pytest.raises(OptionError, match="neither a transformers pipeline nor a callable"):
        as_model(thing)


def test_a_model_is_returned_as_it_is() -> None:
    """`as_model` may be called twice, and users may bring their own class."""
    model = as_model(len)

    assert as_model(model) is model


def test_each_kind_of_object_has_its_class() -> None:
    """Text pipelines, pipelines with tensors of one shape, others, encoders and functions."""

    class Letters:
        def encode(self, texts: list[str]) -> list[list[int]]:
            return [list(map(ord, text)) for text in texts]

    expected = {
        TextPipeline: small_models.pipeline("fill-mask"),
        StackedPipeline: BY_TASK["image-classification"].pipeline(),
        AnyPipeline: BY_TASK["mask-generation"].pipeline(),
        EncoderModel: Letters(),
        FunctionModel: sorted,
    }
    for kind, thing in expected.items():
        assert type(as_model(thing)) is kind


def test_only_classes_of_transformers_are_its_own() -> None:
    """A subclass may override any step."""
    from transformers import FillMaskPipeline

    class Mine(FillMaskPipeline):  # type: ignore[misc]
        pass

    plain = small_models.pipeline("fill-mask")
    subclass = Mine(model=plain.model, tokenizer=plain.tokenizer, device="cpu")

    assert is_own_pipeline(plain)
    assert is_pipeline(subclass)
    assert not is_own_pipeline(subclass)
    assert not is_pipeline(len)


def test_the_origin_of_the_weights_is_a_folder_or_a_name_with_a_revision() -> None:
    """`server.model` shows it, and a commit is cut to twelve digits."""
    pipe = demo.pipeline()

    assert source_of(pipe) == str(demo.MODEL_FOLDER)
    assert ServedModel.of(as_model(pipe)).source == str(demo.MODEL_FOLDER)
    pipe.model.config._commit_hash = "0123456789abcdef"
    assert source_of(pipe) == f"{demo.MODEL_FOLDER}, revision 0123456789ab"
