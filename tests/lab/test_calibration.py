"""Calibration of models with known cost, and of small pipelines."""

from __future__ import annotations

import inspect
import math
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from notebook_serve.errors import InvalidInput, OptionError
from notebook_serve.lab.calibration import UNBATCHED, calibrate
from notebook_serve.models.base import Prepared
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.queueing.cost_model import TERMS, CostModel

from ..helpers import small_models

LAW = CostModel(fixed=0.005, per_item=0.001, per_token=0.0002)
LENGTHS, SIZES = (8, 16, 32, 64, 128), (1, 2, 4, 8, 16)
EVERY = {(size, length) for size in SIZES for length in LENGTHS}


pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Counted:
    """Batch function that advances its own clock by a cost model."""

    def __init__(self, law: CostModel = LAW) -> None:
        self.law = law
        self.now = 1000.0
        #: size and longest of each batch, in the order they ran
        self.calls: list[tuple[int, int]] = []
        self.parameters: list[Any] = []

    def __call__(self, inputs: list[str], extra: float = 0.0, mark: object = None) -> list[str]:
        """Advance the clock by the seconds of this batch."""
        lengths = [len(item) for item in inputs]
        self.calls.append((len(lengths), max(lengths)))
        self.parameters.append(extra)
        self.now += self.seconds(lengths) + extra
        return inputs

    def seconds(self, lengths: Sequence[int]) -> float:
        """Return the seconds of this batch."""
        return self.law(lengths)

    def length(self, item: str) -> int:
        """Return the length of an input."""
        return len(item)

    def clock(self) -> float:
        """Return the time in seconds."""
        return self.now


def same_law(one: CostModel, other: CostModel, tolerance: float = 1e-6) -> bool:
    """Return True if all terms of two cost models agree over the measured range."""
    largest = [1, 16 * 128, 16, 16 * 128**2]
    parts = zip(TERMS, largest, strict=True)
    apart = [abs(getattr(one, name) - getattr(other, name)) * most for name, most in parts]
    return all(part <= tolerance * other.seconds(16, 128) for part in apart)


# -- functions with their own clock -------------------------------------------------------


@pytest.mark.parametrize(
    "law",
    [
        LAW,
        CostModel(fixed=0.01),
        CostModel(per_token=0.001),
        CostModel(fixed=0.002, per_item=0.0005, per_token=0.0001, per_square=2e-6),
    ],
    ids=str,
)
def test_a_known_cost_model_is_found(law: CostModel) -> None:
    """The fit to exact timings has the terms of the cost model."""
    function = Counted(law)
    measured = calibrate(function, clock=function.clock)

    assert same_law(measured, law)
    assert measured.error < 1e-6
    assert measured.batches == 25 * 3
    assert measured.warnings == ()


def test_every_shape_runs_once_to_warm_up_and_then_in_rounds() -> None:
    """Each size at each length runs once a round, in a new order."""
    function = Counted()
    calibrate(function, repeats=4, clock=function.clock)
    rounds = [function.calls[at : at + 25] for at in range(0, 125, 25)]

    assert len(function.calls) == 125
    assert all(set(calls) == EVERY for calls in rounds)
    assert len(set(map(tuple, rounds))) == 5


def test_the_seed_determines_the_order() -> None:
    """The same seed gives the same order, another seed another order."""
    orders = []
    for seed in (1, 1, 2):
        function = Counted()
        calibrate(function, seed=seed, clock=function.clock)
        orders.append(function.calls)

    assert orders[0] == orders[1] != orders[2]


def test_the_first_run_of_a_shape_does_not_count() -> None:
    """Work done once for a new shape, such as choosing a kernel, is not fitted."""

    class Lazy(Counted):
        def seconds(self, lengths: Sequence[int]) -> float:
            first = self.calls.count(self.calls[-1]) == 1
            return self.law(lengths) + 10.0 * first

    function = Lazy()

    assert same_law(calibrate(function, clock=function.clock), LAW)


def test_a_slowing_machine_does_not_bias_a_term() -> None:
    """Every shape is timed early and late, so the terms keep their proportions."""

    class Tiring(Counted):
        def seconds(self, lengths: Sequence[int]) -> float:
            return self.law(lengths) * (1 + len(self.calls) / 100)

    function = Tiring()
    measured = calibrate(function, clock=function.clock)

    for size, longest in ((1, 8), (1, 128), (16, 8), (16, 128)):
        slower = measured.seconds(size, longest) / LAW.seconds(size, longest)
        assert slower == pytest.approx(1.63, rel=0.15)


def test_the_fit_uses_the_length_that_the_server_would_see() -> None:
    """`make` may return an input of another length."""
    function = Counted()
    asked: list[int] = []

    def make(length: int) -> str:
        asked.append(length)
        return "x" * (length + 5)

    measured = calibrate(function, (3, 30, 50), (1, 3), make=make, clock=function.clock)

    assert set(function.calls) == {(size, length) for size in (1, 3) for length in (8, 35, 55)}
    assert Counter(asked) == {3: 3, 30: 3, 50: 3}  # the larger batch has three inputs
    assert same_law(measured, LAW)


def test_inputs_of_one_batch_may_differ() -> None:
    """`make` may be random: the longest input of a batch counts."""
    function = Counted()
    more = iter(range(1000))
    measured = calibrate(
        function, make=lambda length: "x" * (length + next(more) % 7), clock=function.clock
    )

    assert same_law(measured, LAW)


def test_a_function_without_lengths_has_a_cost_per_item() -> None:
    """Without lengths only the sizes are measured, without a warning."""
    function = Counted(CostModel(fixed=0.01, per_item=0.002))

    def batch(inputs: list[str]) -> list[str]:
        return function(inputs)

    measured = calibrate(batch, [1], range(1, 9), make=lambda length: "text", clock=function.clock)

    assert measured.fixed == pytest.approx(0.01)
    assert measured.per_item == pytest.approx(0.002)
    assert measured.warnings == ()


def test_postprocessing_is_timed() -> None:
    """It is part of a batch's seconds in a server too."""
    function = Counted()

    class Finishing(FunctionModel):
        def finish(self, item: Prepared, output: Any) -> Any:
            function.now += 0.5
            return output

    measured = calibrate(Finishing(function), clock=function.clock)

    assert same_law(measured, CostModel(0.005, 0.501, 0.0002))


def test_parameters_reach_the_function() -> None:
    """Their cost is measured too."""
    function = Counted()
    measured = calibrate(function, parameters={"extra": 0.25}, clock=function.clock)

    assert set(function.parameters) == {0.25}
    assert measured.fixed == pytest.approx(0.255)


def test_everything_runs_on_the_calling_thread() -> None:
    """So the caller's number of torch threads applies."""
    threads: set[threading.Thread] = set()

    def function(inputs: list[str]) -> list[str]:
        threads.add(threading.current_thread())
        return inputs

    calibrate(function, [1], [1, 2], make=lambda length: "x")

    assert threads == {threading.current_thread()}


def test_inputs_that_never_share_a_batch() -> None:
    """Requests with parameters that cannot be compared run alone: only size 1 is measured."""
    function = Counted()
    measured = calibrate(function, parameters={"mark": object()}, clock=function.clock)

    assert set(function.calls) == {(1, length) for length in LENGTHS}
    assert measured.warnings.count(UNBATCHED) == 1


# -- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": ()}, "lengths must be whole numbers"),
        ({"lengths": (8, 0)}, "lengths must be whole numbers"),
        ({"lengths": (8.0,)}, "lengths must be whole numbers"),
        ({"sizes": []}, "sizes must be whole numbers"),
        ({"sizes": [-1]}, "sizes must be whole numbers"),
        ({"sizes": ["2"]}, "sizes must be whole numbers"),
        ({"sizes": [True]}, "sizes must be whole numbers"),
        ({"repeats": 0}, "repeats must be whole numbers"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    """They are rejected before a batch runs."""
    function = Counted()
    with pytest.raises(OptionError, match=message):
        calibrate(function, **options)

    assert function.calls == []


def test_an_invalid_model() -> None:
    """The error is that of `serve`."""
    with pytest.raises(OptionError, match="neither a transformers pipeline nor a callable"):
        calibrate("fill-mask")


def test_unknown_inputs_need_make() -> None:
    """The inputs of a function without a length are unknown; the error says what to pass."""
    with pytest.raises(OptionError, match="pass make"):
        calibrate(sorted)


def test_errors_of_the_model_are_raised() -> None:
    """There is no fit to the batches before the error."""

    class Fragile(Counted):
        def seconds(self, lengths: Sequence[int]) -> float:
            if len(self.calls) == 40:
                raise RuntimeError("no more")
            return 1.0

    with pytest.raises(RuntimeError, match="no more"):
        calibrate(Fragile())


def test_rejected_lengths_are_left_out() -> None:
    """The others are measured, and a warning names each rejected length."""
    function = Counted()

    def make(length: int) -> str:
        if length > 40:
            raise InvalidInput("far too long")
        return "x" * length

    measured = calibrate(function, make=make, clock=function.clock)

    assert {length for _, length in function.calls} == {8, 16, 32}
    assert measured.warnings == (
        "length 64 is left out: far too long",
        "length 128 is left out: far too long",
    )
    assert same_law(measured, LAW)


def test_an_error_if_every_length_is_rejected() -> None:
    """It is the model's own error."""
    with pytest.raises(InvalidInput, match="does not take the parameter 'colour'"):
        calibrate(Counted(), parameters={"colour": "red"})


# -- pipelines ----------------------------------------------------------------------------

#: so that generation is short
FEW_TOKENS = {"text-generation": {"max_new_tokens": 2, "do_sample": False}}


def forwards(pipe: Any) -> list[tuple[int, ...]]:
    """Return a list that collects the shapes of the model's prompts."""
    shapes: list[tuple[int, ...]] = []
    forward = pipe.model.forward

    def seen(input_ids: Any = None, *rest: Any, **options: Any) -> Any:
        if input_ids.shape[1] > 1:  # a step of generation has one token
            shapes.append(tuple(input_ids.shape))
        return forward(input_ids, *rest, **options)

    seen.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    pipe.model.forward = seen
    return shapes


@pytest.mark.parametrize("task", sorted({*small_models.TASKS} - {"zero-shot-classification"}))
def test_texts_have_the_requested_lengths(task: str) -> None:
    """Words, and a mask for fill-mask, have exactly that number of tokens."""
    pipe = small_models.pipeline(task)
    shapes = forwards(pipe)
    measured = calibrate(pipe, (5, 8, 33, 64), (1, 3), repeats=2, parameters=FEW_TOKENS.get(task))

    expected = {(size, length) for size in (1, 3) for length in (5, 8, 33, 64)}
    assert Counter(shapes) == dict.fromkeys(expected, 3)
    assert measured.batches == 16
    assert measured.seconds(3, 64) > 0
    assert not any("left out" in warning for warning in measured.warnings)


@pytest.mark.parametrize("labels", [None, ["red", "blue", "green"]])
@pytest.mark.parametrize("made_with", [None, "one, two, three, open"])
def test_zero_shot_is_measured_with_labels(labels: Any, made_with: Any) -> None:
    """They are those of the parameters, of the pipeline, or two; lengths are sums over them."""
    options = {"candidate_labels": made_with} if made_with else {}
    pipe = small_models.pipeline("zero-shot-classification", **options)
    shapes = forwards(pipe)
    parameters = {"candidate_labels": labels} if labels else None
    calibrate(pipe, (60, 120), (1, 2), repeats=1, parameters=parameters)

    rows = 3 if labels else 4 if made_with else 2
    assert {count for count, _ in shapes} == {rows, 2 * rows}
    assert {rows * width for _, width in shapes} == {60, 120}


@pytest.mark.parametrize("task", sorted({*small_models.TASKS} - {"zero-shot-classification"}))
def test_lengths_above_the_models_positions_are_left_out(task: str) -> None:
    """A warning names each of them."""
    pipe = small_models.pipeline(task)
    shapes = forwards(pipe)
    measured = calibrate(
        pipe, (8, 64, 65, 1000), (1, 2), repeats=1, parameters=FEW_TOKENS.get(task)
    )
    left_out = [warning for warning in measured.warnings if "left out" in warning]

    assert {length for _, length in shapes} == {8, 64}
    assert [warning.split(" is ")[0] for warning in left_out] == ["length 65", "length 1000"]


def test_truncated_texts_are_left_out() -> None:
    """A length that truncation makes impossible is left out."""
    pipe = small_models.pipeline("text-classification")
    cut = {"truncation": True, "max_length": 10}
    measured = calibrate(pipe, (8, 10, 12), (1, 2), repeats=1, parameters=cut)

    assert any(
        "length 12 is left out" in warning and "truncate" in warning
        for warning in measured.warnings
    )
    assert measured.batches == 4


def test_texts_come_as_close_as_possible() -> None:
    """Special tokens set a minimum length; the actual length is fitted."""
    pipe = small_models.pipeline("fill-mask")
    shapes = forwards(pipe)
    calibrate(pipe, (1, 6), (1,), repeats=1)

    assert {length for _, length in shapes} == {4, 6}  # a word, the mask, and two around them


def test_an_invalid_parameter_of_a_pipeline() -> None:
    """The error is the pipeline's own."""
    pipe = small_models.pipeline("fill-mask")
    with pytest.raises(InvalidInput, match="'top_k' must be a whole number"):
        calibrate(pipe, parameters={"top_k": 0})


def test_make_for_a_pipeline() -> None:
    """`make` may return inputs like those of real requests, such as pairs of texts."""
    pipe = small_models.pipeline("text-classification")
    shapes = forwards(pipe)
    calibrate(
        pipe,
        (10, 20),
        (1, 2),
        make=lambda length: {"text": "the queue", "text_pair": "a " * length},
        repeats=1,
    )

    assert {length for _, length in shapes} == {10 + 5, 20 + 5}


def test_a_pipeline_that_runs_one_input_at_a_time() -> None:
    """It needs `make`, and its batches have size 1."""
    from transformers import FillMaskPipeline

    class Own(FillMaskPipeline):  # type: ignore[misc]
        pass

    plain = small_models.pipeline("fill-mask")
    pipe = Own(model=plain.model, tokenizer=plain.tokenizer, device="cpu")
    shapes = forwards(pipe)
    with pytest.raises(OptionError, match=r"one at a time\) are unknown; pass make"):
        calibrate(pipe)
    measured = calibrate(pipe, [8], make=lambda length: "the [MASK] waits", repeats=2)

    assert set(shapes) == {(1, 5)}
    assert measured.batches == 2
    assert UNBATCHED in measured.warnings
    assert measured([1]) > 0
    assert math.isfinite(measured.error)
