from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notebook_serve.errors import OptionError
from notebook_serve.queueing.cost_model import FEW, MOST_ERROR, NO_FIT, TERMS, CostModel, Fit
from notebook_serve.queueing.policies import Greedy
from notebook_serve.records import BatchRecord
from notebook_serve.simulation.simulator import simulate
from notebook_serve.traffic import Poisson

COSTS = [
    CostModel(fixed=0.005, per_token=0.0002),
    CostModel(fixed=0.004, per_item=0.001, per_token=0.0003),
    CostModel(fixed=0.002, per_item=0.0005, per_token=0.0001, per_square=2e-6),
    CostModel(per_item=0.003),
    CostModel(per_token=0.001),
    CostModel(fixed=0.05),
]


class Timed(NamedTuple):
    """A batch with only the attributes that a fit reads."""

    lengths: tuple[int, ...]
    seconds: float


def shapes(count: int, seed: int, *, sizes: int = 16, most: int = 128) -> list[tuple[int, ...]]:
    """Return the lengths of each of `count` random batches."""
    rng = random.Random(seed)
    return [tuple(rng.randint(1, most) for _ in range(rng.randint(1, sizes))) for _ in range(count)]


def timed(
    truth: CostModel, batches: Iterable[tuple[int, ...]], noise: float = 0.0, seed: int = 0
) -> list[Timed]:
    """Return batches that take their cost under `truth`, with random errors."""
    rng = random.Random(seed)
    return [Timed(lengths, truth(lengths) * rng.gauss(1.0, noise)) for lengths in batches]


def terms(model: CostModel) -> list[float]:
    """Return the terms of the model, in seconds."""
    return [getattr(model, name) for name in TERMS]


# -- the formula --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "lengths", "seconds"),
    [
        (CostModel(), [3, 4], 0.0),
        (CostModel(fixed=1.0), [3, 4, 5], 1.0),
        (CostModel(per_item=1.0), [3, 4, 5], 3.0),
        # padded to the longest
        (CostModel(per_token=1.0), [3, 4, 5], 15.0),
        (CostModel(per_square=1.0), [3, 4, 5], 75.0),
        (CostModel(1000.0, 100.0, 10.0, 1.0), [2, 1], 1000.0 + 200.0 + 40.0 + 8.0),
        (CostModel(fixed=1.0, per_token=1.0), [0], 1.0),
        # no batch, no call
        (CostModel(fixed=1.0), [], 0.0),
    ],
)
def test_a_batch_costs_what_its_size_and_its_longest_cost(
    truth: CostModel, lengths: Sequence[int], seconds: float
) -> None:
    """The terms add up, and every input counts as the longest."""
    assert truth(lengths) == seconds
    assert not lengths or truth.seconds(len(lengths), max(lengths)) == seconds


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("value", ["1", None, True, False, math.nan, math.inf, -math.inf, -1e-9])
def test_a_term_is_a_number_from_zero_up(name: str, value: Any) -> None:
    """Other values are rejected, and the error names the term."""
    with pytest.raises(OptionError, match=f"{name} must be a number of seconds >= 0"):
        CostModel(**{name: value})


def test_whole_numbers_will_do() -> None:
    """Integers and numbers of numpy are accepted too."""
    assert CostModel(fixed=1, per_item=np.float64(2.0))([5, 5]) == 5.0


# -- as text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        *COSTS,
        CostModel(0.1, 0.2, 0.3, 0.4, error=0.125, batches=30, warnings=("one", "two")),
        CostModel.fit(timed(COSTS[1], shapes(5, 1))),
    ],
    ids=repr,
)
def test_json_gives_the_model_back(model: CostModel) -> None:
    """Every field survives, including warnings and not-a-number, which JSON does not have."""
    text = model.to_json()
    back = CostModel.from_json(text)

    assert repr(back) == repr(model)  # where not-a-number equals itself
    assert isinstance(back.warnings, tuple)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_json_may_leave_fields_out() -> None:
    """A file written by hand needs only the terms."""
    model = CostModel.from_json('{"fixed": 0.5}')

    assert model.fixed == 0.5
    assert math.isnan(model.error)
    assert model.warnings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"fixed": "1"}', "fixed must be a number"),
        ('{"per_token": true}', "per_token must be a number"),
        ('{"per_item": null}', "per_item must be a number"),
        ('{"per_item": -1}', "per_item must be a number"),
        ('{"per_square": NaN}', "per_square must be a number"),
        ('{"fixed": Infinity}', "fixed must be a number"),
        ('{"fixed": 1, "slope": 2}', "no field 'slope'"),
        ("[1, 2]", "JSON object"),
        ("5", "JSON object"),
        ("fixed = 1", "JSON"),
        ("", "JSON"),
    ],
)
def test_json_of_something_else_is_rejected(text: str, said: str) -> None:
    """Other text raises `OptionError` with the reason."""
    with pytest.raises(OptionError, match=said):
        CostModel.from_json(text)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (CostModel(), "nothing"),
        (CostModel(fixed=0.005), "5 ms"),
        (
            CostModel(0.005, 0.001, 0.0002, 1e-6),
            "5 ms + 1 ms per item + 0.2 ms per padded token + 0.001 ms per item and squared length",
        ),
        (
            CostModel(per_item=0.001, error=0.07, batches=30),
            "1 ms per item (typical error 7% over 30 batches)",
        ),
        (CostModel(error=0.0, batches=30), "nothing (typical error 0% over 30 batches)"),
        (CostModel(fixed=1, warnings=("ouch", "oh")), "1e+03 ms\nwarning: ouch\nwarning: oh"),
    ],
)
def test_it_reads_as_a_formula(model: CostModel, expected: str) -> None:
    """Terms of 0 are left out; error and warnings are shown."""
    assert str(model) == expected


# -- known costs --------------------------------------------------------------------------


@pytest.mark.parametrize("truth", COSTS, ids=str)
def test_a_fit_finds_the_true_terms(truth: CostModel) -> None:
    """Without noise the fit finds every term, and 0 for terms of 0."""
    fitted = CostModel.fit(timed(truth, shapes(200, 3)))
    whole = truth([128] * 16)
    # Each term is right to a millionth of the cost of a large batch.
    largest = [1, 16, 16 * 128, 16 * 128**2]

    errors = np.subtract(terms(fitted), terms(truth)) * largest
    assert errors == pytest.approx([0.0] * 4, abs=1e-6 * whole)
    assert fitted.error < 1e-6
    assert fitted.batches == 200
    assert fitted.warnings == ()


@pytest.mark.parametrize("truth", COSTS, ids=str)
@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_a_fit_to_noisy_times_predicts_what_they_are_about(truth: CostModel, noise: float) -> None:
    """Predictions are within half of the noise for every shape, and `error` is the noise."""
    fitted = CostModel.fit(timed(truth, shapes(1000, 4), noise, seed=5))

    for lengths in shapes(50, 6):
        assert fitted(lengths) == pytest.approx(truth(lengths), rel=noise / 2)
    assert fitted.error == pytest.approx(noise, rel=0.1)
    assert fitted.warnings == ()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("truth", COSTS, ids=str)
def test_a_fit_is_not_biased(truth: CostModel, seed: int) -> None:
    """The predicted total is within 1% of the actual total, with or without noise."""
    batches = timed(truth, shapes(1000, seed), 0.2, seed + 100)
    fitted = CostModel.fit(batches)

    predicted = sum(fitted(batch.lengths) for batch in batches)
    assert predicted == pytest.approx(sum(batch.seconds for batch in batches), rel=0.01)


@pytest.mark.parametrize("times", [10, 1000])
def test_delayed_batches_do_not_change_the_fit(times: float) -> None:
    """Rare delays, such as swapping, change neither the terms nor the error."""
    truth = COSTS[0]
    batches = timed(truth, shapes(200, 3), 0.05, seed=6)
    batches[7] = batches[7]._replace(seconds=times * batches[7].seconds)
    fitted, without = CostModel.fit(batches), CostModel.fit(batches[:7] + batches[8:])

    assert terms(fitted) == pytest.approx(terms(without))
    assert fitted.error == pytest.approx(without.error)
    assert fitted.batches == 199


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("truth", [truth for truth in COSTS if not truth.per_square], ids=str)
def test_the_square_is_left_out_where_there_is_none(
    truth: CostModel, noise: float, seed: int
) -> None:
    """Noise alone does not produce a quadratic term, which would mislead for longer inputs."""
    assert CostModel.fit(timed(truth, shapes(200, seed), noise, seed)).per_square == 0.0


def test_the_square_is_found_where_there_is_one() -> None:
    """The fit finds attention in noise if it takes half the time of long batches."""
    truth = CostModel(fixed=0.002, per_token=0.0001, per_square=1e-6)

    for seed in range(10):
        fitted = CostModel.fit(timed(truth, shapes(200, seed), 0.05, seed))
        assert fitted.per_square == pytest.approx(1e-6, rel=0.2)


@pytest.mark.parametrize("length", [0, 1])
def test_without_lengths_there_are_a_call_and_items(length: int) -> None:
    """If all inputs are equally long, the fit needs no cost per token."""
    truth = CostModel(fixed=0.01, per_item=0.002)
    batches = [(length,) * size for size in range(1, 17)] * 2
    fitted = CostModel.fit(timed(truth, batches))

    assert terms(fitted) == pytest.approx(terms(truth), abs=1e-9)
    assert fitted.warnings == ()


def test_short_batches_count_as_much_as_long_ones() -> None:
    """Errors are relative, so batches of minutes do not outweigh short ones."""
    truth = CostModel(fixed=0.01, per_token=0.001)
    batches = [(2**power,) for power in range(17)] * 30
    fitted = CostModel.fit(timed(truth, batches, 0.1, 8))

    for length in (1, 100, 65536):
        assert fitted([length]) == pytest.approx(truth([length]), rel=0.05)


def test_records_of_a_server_will_do() -> None:
    """The result of `Server.batches()` can be fitted directly; empty batches are skipped."""
    truth = COSTS[1]
    records = [
        BatchRecord(id=n, reason="full", lengths=lengths, started=0.0, seconds=truth(lengths))
        for n, lengths in enumerate([*shapes(50, 9), ()])
    ]
    fitted = CostModel.fit(iter(records))

    assert fitted.batches == 50
    assert terms(fitted) == pytest.approx(terms(truth), abs=1e-9)


@pytest.mark.parametrize("batches", [[], [Timed((), 1.0)]])
def test_nothing_cannot_be_fitted_to(batches: list[Timed]) -> None:
    """The error for no batches says what to do."""
    with pytest.raises(OptionError, match="serve some requests"):
        CostModel.fit(batches)


# -- warnings -----------------------------------------------------------------------------

COST = CostModel(fixed=0.004, per_item=0.001, per_token=0.0003)


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([(length,) * 4 for length in range(1, 41)], "do not distinguish fixed from per_item"),
        ([(30,) * (n % 8 + 1) for n in range(40)], "do not distinguish per_token from per_item"),
        ([(30,) * 4] * 40, "do not distinguish fixed from per_token from per_item"),
        ([(1,) * 4] * 40, "do not distinguish fixed from per_item"),
        # as many tokens in each: a few long ones or many short ones
        ([(64 // n,) * n for n in (1, 2, 4, 8, 16)] * 8, "do not distinguish fixed from per_token"),
        (shapes(FEW - 1, 1), f"only {FEW - 1} batches"),
    ],
    ids=["one size", "one length", "one of both", "no lengths, one size", "as many tokens", "few"],
)
def test_batches_that_do_not_distinguish_terms_are_a_warning(
    batches: list[tuple[int, ...]], said: str
) -> None:
    """The warning names the terms that the batches leave open; similar batches are predicted."""
    fitted = CostModel.fit(timed(COST, batches))

    (warning,) = fitted.warnings
    assert said in warning
    assert [fitted(lengths) for lengths in batches] == pytest.approx(list(map(COST, batches)))


def test_durations_without_a_pattern_are_a_warning() -> None:
    """A large error is a warning."""
    rng = random.Random(11)
    batches = [Timed(lengths, rng.choice([0.01, 1.0])) for lengths in shapes(100, 12)]
    fitted = CostModel.fit(batches)

    (warning,) = fitted.warnings
    assert "no combination of terms fits" in warning
    assert f"{fitted.error:.0%}" in warning


@pytest.mark.parametrize("seed", range(10))
def test_good_data_raise_no_doubt(seed: int) -> None:
    """Enough batches of mixed shapes with common noise have no warning."""
    batches = shapes(FEW, seed)

    assert CostModel.fit(timed(COST, batches, 0.1, seed)).warnings == ()


# -- arbitrary durations ------------------------------------------------------------------

anything = st.builds(
    Timed,
    st.lists(st.integers(0, 100_000), min_size=1, max_size=64).map(tuple),
    st.floats(0, 1e4),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(anything, min_size=1, max_size=40))
@example([Timed((5,), 0.0)] * 3)
@example([Timed((0,), 0.0), Timed((0, 0), 1.0)])
@example([Timed((7,), 1e-300), Timed((1, 1), 1e4)])
def test_no_term_is_negative(batches: list[Timed]) -> None:
    """For any durations the terms are finite and non-negative, and there is an error."""
    fitted = CostModel.fit(batches)

    assert all(0 <= value < math.inf for value in terms(fitted))
    assert 0 <= fitted.error < math.inf
    assert CostModel.from_json(fitted.to_json()) == fitted


def test_a_coarse_clock_spoils_nothing() -> None:
    """Batches shorter than a clock tick take 0 or one tick; the fit is right on average."""
    truth, tick = CostModel(fixed=0.005, per_token=0.0002), 0.015
    rng = random.Random(13)
    batches = [
        Timed(lengths, math.floor(truth(lengths) / tick + rng.random()) * tick)
        for lengths in shapes(1000, 14)
    ]
    assert min(batch.seconds for batch in batches) == 0.0
    fitted = CostModel.fit(batches)

    for size, longest in [(4, 60), (8, 64), (16, 128)]:
        assert fitted.seconds(size, longest) == pytest.approx(
            truth.seconds(size, longest), rel=0.05
        )


# -- against another solver ---------------------------------------------------------------


class Problem(NamedTuple):
    """A fit, and the same problem as a weighted system of equations."""

    fit: Fit
    #: one row for each batch and one column for each term, both divided by the expected duration
    matrix: np.ndarray[Any, np.dtype[np.float64]]
    target: np.ndarray[Any, np.dtype[np.float64]]


def problem(rng: random.Random, seconds: Callable[[int, int], float]) -> Problem:
    """Return batches of random shapes that took `seconds(size, longest)`."""
    fit, rows, target = Fit(), [], []
    for _ in range(rng.randint(8, 60)):
        size, longest = rng.randint(1, 32), rng.randint(1, 512)
        took, expected = seconds(size, longest), rng.uniform(0.01, 1.0)
        fit.add(size, longest, took, expected)
        tokens = size * longest
        rows.append([value / expected for value in (1, tokens, size, tokens * longest)])
        target.append(took / expected)
    return Problem(fit, np.array(rows, float), np.array(target, float))


@pytest.mark.parametrize("seed", range(20))
def test_least_squares_agree_with_numpy(seed: int) -> None:
    """If no term is negative, the terms equal those of an ordinary solver."""
    rng = random.Random(seed)
    truth = CostModel(0.05, 0.01, 0.0003, 1e-6)
    fit, matrix, target = problem(rng, lambda *shape: truth.seconds(*shape) * rng.gauss(1, 0.001))
    expected = np.linalg.lstsq(matrix, target, rcond=None)[0]
    assert min(expected) > 0

    assert terms(fit.solve()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(200))
def test_durations_without_a_pattern_get_the_best_terms(seed: int) -> None:
    """No other non-negative terms have smaller squares (the Kuhn-Tucker conditions hold).

    The gradient of the squares is nothing along each term that is in use, and along those at zero
    it does not fall; all in shares of the most that it could be.
    """
    rng = random.Random(seed)
    power = rng.uniform(-1, 3)
    fit, matrix, target = problem(
        rng, lambda size, longest: rng.expovariate(1.0) * (size * longest / 1000) ** power
    )
    solved = fit.solve()
    # Terms are left out if they do not help.
    columns = list(range(4 if solved.per_square else 3 if solved.per_item else 2))
    matrix, values = matrix[:, columns], np.array(terms(solved))[columns]
    gradient = matrix.T @ (matrix @ values - target)
    gradient /= np.linalg.norm(matrix, axis=0) * np.linalg.norm(target)

    assert min(gradient) > -1e-4
    assert np.abs(gradient[values > 0]).max() < 1e-6
    residual = np.sqrt(np.mean((matrix @ values - target) ** 2))
    assert solved.error == pytest.approx(residual, rel=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_short_inputs_alone_do_not_make_long_ones_cheap(seed: int) -> None:
    """If inputs are similar in length, a cost per token is not mistaken for a cost per input.

    By chance the one often fits such batches as well as the other.
    """
    rng, truth = random.Random(seed), CostModel(fixed=0.02, per_token=0.00025)
    ran = []
    for _ in range(60):
        lengths = tuple(rng.randint(6, 10) for _ in range(rng.choice([11, 15, 16, 17, 21])))
        ran.append(Timed(lengths, truth(lengths) * rng.lognormvariate(0.0, 0.1)))
    model = CostModel.fit(ran)

    assert 0.6 < model.seconds(8, 120) / truth.seconds(8, 120) < 1.6


# -- one batch at a time ------------------------------------------------------------------


def fed(fit: Fit, truth: CostModel, count: int, seed: int) -> CostModel:
    """Return the result of `fit` after `count` more batches under `truth`."""
    for lengths in shapes(count, seed):
        seconds = truth(lengths)
        fit.add(len(lengths), max(lengths), seconds, seconds)
    return fit.solve()


def test_a_fit_with_memory_follows_a_change_of_the_model() -> None:
    """Old batches are forgotten, so the fit follows a change of the model."""
    before, after = COSTS[1], CostModel(fixed=0.02, per_item=0.0001, per_token=0.0009)
    fit, everything = Fit(memory=50), Fit()
    first = fed(fit, before, 300, 1)
    fed(everything, before, 300, 1)
    mixed = fed(fit, after, 35, 2)
    last, average = fed(fit, after, 500, 3), fed(everything, after, 535, 3)
    shape = (8, 64)

    assert terms(first) == pytest.approx(terms(before), abs=1e-8)
    assert before.seconds(*shape) < mixed.seconds(*shape) < after.seconds(*shape)
    assert last.seconds(*shape) == pytest.approx(after.seconds(*shape), rel=0.01)
    assert average.seconds(*shape) < 0.9 * after.seconds(*shape)
    assert last.batches == 835


def test_a_fit_that_remembers_everything_does_so_in_any_order() -> None:
    """The order of batches does not matter."""
    truth, batches = COSTS[2], shapes(60, 21)
    solved = []
    for order in (batches, batches[::-1]):
        fit = Fit()
        for lengths in order:
            fit.add(len(lengths), max(lengths), truth(lengths), 0.01)
        solved.append(terms(fit.solve()))

    assert solved[0] == pytest.approx(solved[1], rel=1e-6)


def test_lengths_that_were_forgotten_do_no_harm() -> None:
    """Sums that have decayed to 0 cause no division by 0."""
    fit = Fit(memory=1)  # each batch makes the one before forgotten
    fit.add(2, 50, 0.5, 0.5)
    for size in (2, 4):
        fit.add(size, 0, 0.25, 0.25)
    solved = fit.solve()

    assert solved.seconds(4, 0) == pytest.approx(0.25)
    assert any("do not distinguish" in warning for warning in solved.warnings)


# -- trust --------------------------------------------------------------------------------


def test_a_fit_knows_how_large_its_batches_were() -> None:
    """A fit stores its largest batch and longest input; a model that was not fitted has none."""
    fitted = CostModel.fit([Timed((5, 9), 0.1), Timed((3,), 0.1), Timed((2,) * 7, 0.2)])

    assert (fitted.largest, fitted.longest) == (7, 9)
    assert (CostModel(0.1).largest, CostModel(0.1).longest) == (0, 0)
    assert CostModel.from_json(fitted.to_json()) == fitted


def test_an_old_file_is_a_model_of_unknown_size() -> None:
    """Without its largest batch nothing is called extrapolated."""
    text = '{"fixed": 0.005, "error": 0.1, "batches": 40, "warnings": []}'

    assert CostModel.from_json(text).doubts(1000, 1000) == ()


@pytest.mark.parametrize(
    ("error", "fits"), [(math.nan, True), (0.0, True), (MOST_ERROR, True), (0.2501, False)]
)
def test_one_threshold_decides_whether_a_model_fits(error: float, fits: bool) -> None:
    """One threshold decides on the warning, the doubts and the digits."""
    truth = CostModel(0.005, error=error, batches=40)
    report = simulate(Greedy(4), Poisson(20.0), truth, duration=2.0)

    assert truth.fits is fits
    assert report.is_rough is not fits
    assert any("does not fit" in said for said in truth.doubts()) is not fits
    assert any("does not fit" in note for note in report.notes) is not fits


def test_doubts_are_sentences_the_gravest_first() -> None:
    """The doubts repeat the warnings of the fit, and name sizes more than half beyond it."""
    truth = CostModel(
        0.005,
        error=0.69,
        warnings=("only 9 batches; at least 20 are needed", f"the typical error is 69%: {NO_FIT}"),
        largest=4,
        longest=20,
    )

    assert truth.doubts(6, 30) == (
        "The cost model does not fit: its typical error is 69%, so these figures may be off by a "
        "factor of 2.",
        "The cost model is in doubt: only 9 batches; at least 20 are needed.",
    )
    assert truth.doubts(7, 31)[2:] == (
        "Batches were larger than the 4 requests that the cost model was fitted to: their cost is "
        "extrapolated.",
        "Inputs were longer than the 20 tokens that the cost model was fitted to: their cost is "
        "extrapolated.",
    )


def test_a_model_that_was_not_fitted_has_no_doubts() -> None:
    """A function of the user has no doubts either, because nothing is known of it."""
    plain = simulate(Greedy(64), [0.0] * 64, CostModel(0.005), lengths=500)
    own = simulate(Greedy(64), [0.0] * 64, lambda lengths: 0.005)

    assert plain.notes == own.notes == ()
    assert not plain.is_rough
    assert not own.is_rough
