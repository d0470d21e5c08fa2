from __future__ import annotations

import inspect
import math
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from notebook_serve.errors import InvalidInput, OptionError
from notebook_serve.lab.calibration import ALONE, calibrate
from notebook_serve.models.base import Prepared
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.queueing.cost_model import TERMS, CostModel

from ..helpers import small_models

LAW = CostModel(fixed=0.005, per_item=0.001, per_token=0.0002)
LENGTHS, SIZES = (8, 16, 32, 64, 128), (1, 2, 4, 8, 16)
EVERY = {(size, length) for size in SIZES for length in LENGTHS}


pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Counted:
    """A batch function that takes as long as a law says, on a clock of its own."""

    def __init__(self, law: CostModel = LAW) -> None:
        self.law = law
        self.now = 1000.0
        #: size and longest of each batch, in the order they ran
        self.calls: list[tuple[int, int]] = []
        self.parameters: list[Any] = []

    def __call__(self, inputs: list[str], extra: float = 0.0, mark: object = None) -> list[str]:
        """Let the time of this batch pass."""
        lengths = [len(item) for item in inputs]
        self.calls.append((len(lengths), max(lengths)))
        self.parameters.append(extra)
        self.now += self.seconds(lengths) + extra
        return inputs

    def seconds(self, lengths: Sequence[int]) -> float:
        """How long this batch takes."""
        return self.law(lengths)

    def length(self, item: str) -> int:
        """How long an input is."""
        return len(item)

    def clock(self) -> float:
        """The time now, in seconds."""
        return self.now


def same_law(one: CostModel, other: CostModel, tolerance: float = 1e-6) -> bool:
    """Whether two laws agree on all that was measured, and on the parts of it."""
    largest = [1, 16 * 128, 16, 16 * 128**2]
    parts = zip(TERMS, largest, strict=True)
    apart = [abs(getattr(one, name) - getattr(other, name)) * most for name, most in parts]
    return all(part <= tolerance * other.seconds(16, 128) for part in apart)


# -- functions, on a clock of their own ---------------------------------------------------


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
def test_a_known_law_is_found(law: CostModel) -> None:
    """A function that takes exactly as long as a law says is measured to have that law."""
    function = Counted(law)
    measured = calibrate(function, clock=function.clock)

    assert same_law(measured, law)
    assert measured.error < 1e-6
    assert measured.batches == 25 * 3
    assert measured.warnings == ()


def test_every_shape_runs_once_to_warm_up_and_then_in_rounds() -> None:
    """Each size at each length, in a new order each round, so that drift is not of one shape."""
    function = Counted()
    calibrate(function, repeats=4, clock=function.clock)
    rounds = [function.calls[at : at + 25] for at in range(0, 125, 25)]

    assert len(function.calls) == 125
    assert all(set(calls) == EVERY for calls in rounds)
    assert len(set(map(tuple, rounds))) == 5


def test_the_order_is_the_seeds() -> None:
    """The same seed gives the same order, and another one another."""
    orders = []
    for seed in (1, 1, 2):
        function = Counted()
        calibrate(function, seed=seed, clock=function.clock)
        orders.append(function.calls)

    assert orders[0] == orders[1] != orders[2]


def test_the_first_run_of_a_shape_does_not_count() -> None:
    """What a model does once for a new shape (allocate, choose a kernel) is no part of the law."""

    class Lazy(Counted):
        def seconds(self, lengths: Sequence[int]) -> float:
            first = self.calls.count(self.calls[-1]) == 1
            return self.law(lengths) + 10.0 * first

    function = Lazy()

    assert same_law(calibrate(function, clock=function.clock), LAW)


def test_a_machine_that_slows_down_does_not_look_like_a_term() -> None:
    """Every shape is measured early and late: the parts keep their proportions."""

    class Tiring(Counted):
        def seconds(self, lengths: Sequence[int]) -> float:
            return self.law(lengths) * (1 + len(self.calls) / 100)

    function = Tiring()
    measured = calibrate(function, clock=function.clock)

    for size, longest in ((1, 8), (1, 128), (16, 8), (16, 128)):
        slower = measured.seconds(size, longest) / LAW.seconds(size, longest)
        assert slower == pytest.approx(1.63, rel=0.15)


def test_the_length_that_the_server_would_see_is_what_counts() -> None:
    """`make` may miss the length it was asked for; the batches are taken as they are."""
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
    """`make` may be random: a batch costs what its longest costs."""
    function = Counted()
    more = iter(range(1000))
    measured = calibrate(
        function, make=lambda length: "x" * (length + next(more) % 7), clock=function.clock
    )

    assert same_law(measured, LAW)


def test_a_function_without_lengths_has_a_cost_per_item() -> None:
    """Where length means nothing the sizes alone are measured, and nothing is missed."""
    function = Counted(CostModel(fixed=0.01, per_item=0.002))

    def batch(inputs: list[str]) -> list[str]:
        return function(inputs)

    measured = calibrate(batch, [1], range(1, 9), make=lambda length: "text", clock=function.clock)

    assert measured.fixed == pytest.approx(0.01)
    assert measured.per_item == pytest.approx(0.002)
    assert measured.warnings == ()


def test_what_makes_an_answer_of_an_output_counts_too() -> None:
    """The worker does that as well, so a batch's seconds in a server have it in them."""
    function = Counted()

    class Finishing(FunctionModel):
        def finish(self, item: Prepared, output: Any) -> Any:
            function.now += 0.5
            return output

    measured = calibrate(Finishing(function), clock=function.clock)

    assert same_law(measured, CostModel(0.005, 0.501, 0.0002))


def test_parameters_are_those_of_a_request() -> None:
    """They reach the function, and what they cost is measured."""
    function = Counted()
    measured = calibrate(function, parameters={"extra": 0.25}, clock=function.clock)

    assert set(function.parameters) == {0.25}
    assert measured.fixed == pytest.approx(0.255)


def test_all_of_it_runs_on_the_calling_thread() -> None:
    """So the caller's torch threads are those that are measured."""
    threads: set[threading.Thread] = set()

    def function(inputs: list[str]) -> list[str]:
        threads.add(threading.current_thread())
        return inputs

    calibrate(function, [1], [1, 2], make=lambda length: "x")

    assert threads == {threading.current_thread()}


def test_inputs_that_never_share_a_batch_are_measured_alone() -> None:
    """Parameters that cannot be compared keep each request apart: sizes above one do not occur."""
    function = Counted()
    measured = calibrate(function, parameters={"mark": object()}, clock=function.clock)

    assert set(function.calls) == {(1, length) for length in LENGTHS}
    assert measured.warnings.count(ALONE) == 1


# -- what goes wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
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
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    """They are refused before anything runs."""
    function = Counted()
    with pytest.raises(OptionError, match=said):
        calibrate(function, **options)

    assert function.calls == []


def test_what_is_no_model_is_refused() -> None:
    """As by `serve`."""
    with pytest.raises(OptionError, match="neither a transformers pipeline nor a callable"):
        calibrate("fill-mask")


def test_inputs_that_nobody_knows_must_be_made() -> None:
    """A function without a length may take anything at all: the error says what to give."""
    with pytest.raises(OptionError, match="give make"):
        calibrate(sorted)


def test_what_the_model_raises_is_raised() -> None:
    """Its own exception, not a law of the batches before it."""

    class Fragile(Counted):
        def seconds(self, lengths: Sequence[int]) -> float:
            if len(self.calls) == 40:
                raise RuntimeError("no more")
            return 1.0

    with pytest.raises(RuntimeError, match="no more"):
        calibrate(Fragile())


def test_lengths_that_the_model_refuses_are_left_out() -> None:
    """The rest is measured, and the warnings say what was not."""
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


def test_if_every_length_is_refused_so_is_the_call() -> None:
    """There is nothing to fit to, and the model's own words say why."""
    with pytest.raises(InvalidInput, match="does not take the parameter 'colour'"):
        calibrate(Counted(), parameters={"colour": "red"})


# -- pipelines ----------------------------------------------------------------------------

#: so that generation is short
FEW_TOKENS = {"text-generation": {"max_new_tokens": 2, "do_sample": False}}


def forwards(pipe: Any) -> list[tuple[int, ...]]:
    """The shapes of the prompts that the model will see, as they come."""
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
def test_texts_have_the_lengths_that_were_asked_for(task: str) -> None:
    """Each text task gets words (and a mask where it needs one) of exactly so many tokens."""
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
    """Those of the parameters, else the pipeline's own, else two; lengths are sums over them."""
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
    """Rather than failing, or measuring a text that was cut; the warnings name them."""
    pipe = small_models.pipeline(task)
    shapes = forwards(pipe)
    measured = calibrate(
        pipe, (8, 64, 65, 1000), (1, 2), repeats=1, parameters=FEW_TOKENS.get(task)
    )
    said = [warning for warning in measured.warnings if "left out" in warning]

    assert {length for _, length in shapes} == {8, 64}
    assert [warning.split(" is ")[0] for warning in said] == ["length 65", "length 1000"]


def test_texts_that_are_cut_are_not_taken_for_long_ones() -> None:
    """A length that truncation keeps from being reached is left out."""
    pipe = small_models.pipeline("text-classification")
    cut = {"truncation": True, "max_length": 10}
    measured = calibrate(pipe, (8, 10, 12), (1, 2), repeats=1, parameters=cut)

    assert any(
        "length 12 is left out" in warning and "cut" in warning for warning in measured.warnings
    )
    assert measured.batches == 4


def test_texts_come_as_near_as_they_can() -> None:
    """Special tokens make a shorter length impossible; what there is, is measured as it is."""
    pipe = small_models.pipeline("fill-mask")
    shapes = forwards(pipe)
    calibrate(pipe, (1, 6), (1,), repeats=1)

    assert {length for _, length in shapes} == {4, 6}  # a word, the mask, and two around them


def test_a_bad_parameter_of_a_pipeline_is_told_of() -> None:
    """It is the pipeline's own refusal that is raised."""
    pipe = small_models.pipeline("fill-mask")
    with pytest.raises(InvalidInput, match="'top_k' must be a whole number"):
        calibrate(pipe, parameters={"top_k": 0})


def test_inputs_of_ones_own_for_a_pipeline() -> None:
    """`make` may give what is like the real requests, pairs of texts for one."""
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


def test_a_pipeline_that_runs_one_at_a_time() -> None:
    """Only its user knows what it takes, and its batches are of one."""
    from transformers import FillMaskPipeline

    class Own(FillMaskPipeline):  # type: ignore[misc]
        pass

    plain = small_models.pipeline("fill-mask")
    pipe = Own(model=plain.model, tokenizer=plain.tokenizer, device="cpu")
    shapes = forwards(pipe)
    with pytest.raises(OptionError, match=r"one at a time\) takes; give make"):
        calibrate(pipe)
    measured = calibrate(pipe, [8], make=lambda length: "the [MASK] waits", repeats=2)

    assert set(shapes) == {(1, 5)}
    assert measured.batches == 2
    assert ALONE in measured.warnings
    assert measured([1]) > 0
    assert math.isfinite(measured.error)
