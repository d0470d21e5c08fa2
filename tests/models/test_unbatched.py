"""Pipelines that run one input at a time."""

from __future__ import annotations

from typing import Any

import pytest

from notebook_serve import (
    Greedy,
)
from notebook_serve.engine.engine import Engine
from notebook_serve.models.factory import as_model
from notebook_serve.models.unbatched import AnyPipeline

from ..helpers import small_models
from ..helpers.engines import make_engine

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def started(pipe: Any) -> Engine:
    engine = make_engine(pipe, Greedy(), timeout=100.0, name="pipelines")
    engine.start()
    return engine


def test_any_other_pipeline_runs_one_at_a_time() -> None:
    """A subclass of a pipeline is called once for each input."""
    from transformers import FillMaskPipeline

    class Shouting(FillMaskPipeline):  # type: ignore[misc]
        def postprocess(self, *arguments: Any, **options: Any) -> Any:
            answers = super().postprocess(*arguments, **options)
            return [answer["token_str"].upper() for answer in answers]

    plain = small_models.pipeline("fill-mask")
    pipe = Shouting(model=plain.model, tokenizer=plain.tokenizer, device="cpu")
    assert isinstance(as_model(pipe), AnyPipeline)
    texts = small_models.inputs("fill-mask", 6, 1)
    engine = started(pipe)
    try:
        answers = [future.result(60).value for future in engine.submit(texts, {"top_k": 2})]
        assert answers == [pipe(text, top_k=2) for text in texts]
        assert dict(engine.stats().batch_sizes) == {1: 6}
        assert "one at a time" in engine.stats().model
    finally:
        engine.stop(drain=False)


def test_the_items_of_a_list_do_not_share_modified_parameters() -> None:
    """transformers modifies the parameters of a call, which must not affect the next call."""
    from transformers import FeatureExtractionPipeline

    class Mine(FeatureExtractionPipeline):  # type: ignore[misc]
        pass

    plain = small_models.pipeline("feature-extraction")
    pipe = Mine(plain.model, tokenizer=plain.tokenizer, device="cpu", task="feature-extraction")
    engine = started(pipe)
    try:
        asked = {"truncation": True, "tokenize_kwargs": {"max_length": 4}}
        answers = engine.submit(["the queue waits for the model"] * 3, asked)
        assert [len(answer.result(60).value[0]) for answer in answers] == [4, 4, 4]
        assert asked == {"truncation": True, "tokenize_kwargs": {"max_length": 4}}
    finally:
        engine.stop(drain=False)
