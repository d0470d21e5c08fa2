from __future__ import annotations

import copy
import json
import math
import pickle
import re
from itertools import pairwise
from typing import Any, get_args

import pytest

from notebook_serve.errors import OptionError
from notebook_serve.queueing.cost_model import CostModel
from notebook_serve.queueing.learned_policies import CostAware
from notebook_serve.queueing.policies import (
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
)
from notebook_serve.simulation.capacity import (
    CLOSE,
    MOST_REPLICAS,
    Capacity,
    Plan,
    Quantile,
    capacity,
    holds,
    plan,
)
from notebook_serve.simulation.report import Report
from notebook_serve.simulation.simulator import Dispatch, simulate
from notebook_serve.traffic import Empirical, LogNormal, Poisson

COST = CostModel(0.0065, 0.0004, 0.00017)
MIXED = LogNormal(22, 0.9, 4, 128)
#: ten milliseconds for each request, of any length
EACH = CostModel(fixed=0.01)


def simulated(policy: Policy, rate: float, cost: CostModel = COST, **options: Any) -> Report:
    """Return a report with the attributes that `capacity` and `plan` read."""
    n = options.pop("requests", 10_000)
    return simulate(policy, Poisson(rate, seed=0, n=n), cost, seed=0, **options)


# -- what holds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "quantile", "held"),
    [(0.0101, "mean", False), (0.014, "mean", True), (0.013, "p99", False), (0.1, "p99", True)],
)
def test_an_objective_holds_for_its_quantile(
    objective: float, quantile: Quantile, held: bool
) -> None:
    """Only the given statistic of the latencies is compared."""
    report = simulated(NoBatching(), 40.0, EACH)

    assert holds(report, objective, quantile) is held


def test_an_objective_fails_with_a_rejected_request() -> None:
    """A rejected request fails the objective, even if the others are answered soon."""
    report = simulated(NoBatching(), 300.0, EACH, max_queue_size=1)

    assert report.latency.p99 < 0.05
    assert not holds(report, 0.05)


def test_an_objective_fails_without_requests() -> None:
    """An empty report does not hold an objective by its NaN."""
    assert not holds(simulate(NoBatching(), [], EACH), 1.0)


# -- against theory -----------------------------------------------------------------------


@pytest.mark.parametrize("busy", [0.2, 0.5, 0.8])
def test_the_mean_of_a_queue_with_constant_service(busy: float) -> None:
    """M/D/1: the mean time is s + s·ρ / 2(1 - ρ) (Pollaczek and Khinchine)."""
    seconds = EACH([1])
    objective = seconds + seconds * busy / (2 * (1 - busy))
    found = capacity(NoBatching(), EACH, objective, quantile="mean")

    assert found == pytest.approx(busy / seconds, rel=0.05)


@pytest.mark.parametrize(("quantile", "share"), [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)])
def test_the_percentiles_of_a_queue_with_exponential_service(
    quantile: Quantile, share: float
) -> None:
    """M/M/1: the time is exponential with the rate μ - λ, and so are its percentiles."""
    # As good as an exponential of 1000 tokens, each of 10 microseconds.
    tokens = [max(1, round(-1000 * math.log(1 - (n + 0.5) / 5000))) for n in range(5000)]
    cost = CostModel(per_token=1e-5)
    objective = -math.log(1 - share) / (100.0 - 60.0)
    found = capacity(
        NoBatching(), cost, objective, quantile=quantile, lengths=Empirical(tokens, seed=5)
    )

    assert found == pytest.approx(60.0, rel=0.05)


# -- the highest load ---------------------------------------------------------------------


@pytest.mark.parametrize("policy", [LengthAware(), CostAware(), Greedy(8)], ids=repr)
def test_it_is_the_highest_that_holds(policy: Policy) -> None:
    """The objective holds at the result, and fails a few percent above it."""
    found = capacity(policy, COST, 0.2, lengths=MIXED, requests=4000)

    assert holds(simulated(policy, found, lengths=MIXED, requests=4000), 0.2)
    assert not holds(simulated(policy, 1.1 * found, lengths=MIXED, requests=4000), 0.2)


def test_it_is_the_same_each_time() -> None:
    """Equal arguments give equal results, and another seed a similar one."""
    one, same, other = (
        capacity(Greedy(4), COST, 0.2, lengths=MIXED, requests=4000, seed=seed)
        for seed in (1, 1, 2)
    )

    assert one == same
    assert one != other
    assert one == pytest.approx(other, rel=0.3)


def test_more_time_is_never_less_load() -> None:
    """A looser objective holds at least as much, within the precision of the search."""
    found = [
        capacity(LengthAware(), COST, objective, lengths=MIXED, requests=2000)
        for objective in (0.02, 0.04, 0.06, 0.1, 0.2, 0.5)
    ]

    assert all(less <= more * CLOSE for less, more in pairwise(found))
    assert found[0] < found[-1] / 2


def test_the_options_are_those_of_simulate() -> None:
    """Two workers hold more than twice as much; a short queue holds less."""
    one = capacity(NoBatching(), EACH, 0.05, requests=3000)
    two = capacity(NoBatching(), EACH, 0.05, requests=3000, replicas=2)
    short = capacity(NoBatching(), EACH, 0.05, requests=3000, max_queue_size=2)

    assert 2 * one < two < 3 * one
    assert short < one / 2
    with pytest.raises(TypeError, match="replica"):
        capacity(NoBatching(), EACH, 0.05, replica=2)


def test_what_one_alone_cannot_hold_holds_at_no_load() -> None:
    """If a single request takes longer than the objective, the capacity is 0."""
    assert capacity(Greedy(), EACH, 0.009, requests=500) == 0.0
    # Two in a hundred are too long, and the objective allows one.
    lengths = [1] * 49 + [1000]
    cost = CostModel(per_token=0.001)
    assert capacity(NoBatching(), cost, 0.5, lengths=lengths, requests=500) == 0.0
    assert capacity(NoBatching(), cost, 0.5, lengths=lengths, requests=500, quantile="p50") > 0.0


@pytest.mark.parametrize(
    ("policy", "cost"),
    [
        (NoBatching(), CostModel()),
        (ResettingWindow(0.001), EACH),
        # all of them at once are answered within the objective
        (Greedy(100), CostModel(fixed=0.001)),
    ],
    ids=["no cost", "no limit", "few requests"],
)
def test_what_holds_however_many_come_is_infinite(policy: Policy, cost: CostModel) -> None:
    """If every load holds, the capacity is infinite, and the search ends."""
    assert capacity(policy, cost, 0.1, requests=300) == math.inf


@pytest.mark.parametrize("objective", [0, -1.0, math.inf, math.nan, True, "0.1", None])
def test_a_wrong_objective_is_rejected(objective: Any) -> None:
    """Wrong options raise before a simulation, and the error has the value."""
    with pytest.raises(
        OptionError, match=f"objective must be a positive number .* got {objective!r}"
    ):
        capacity(Greedy(), EACH, objective)
    with pytest.raises(OptionError, match="objective"):
        plan(Greedy(), EACH, 10.0, objective)


@pytest.mark.parametrize("quantile", ["p98", "max", "", 99, None])
def test_an_unknown_quantile_is_rejected(quantile: Any) -> None:
    """The error lists the known quantiles."""
    with pytest.raises(OptionError, match="quantile must be one of p50, p90, p95, p99, mean"):
        capacity(Greedy(), EACH, 0.1, quantile=quantile)
    with pytest.raises(OptionError, match="quantile"):
        plan(Greedy(), EACH, 10.0, 0.1, quantile=quantile)


def test_every_quantile_that_is_named_is_known() -> None:
    """The type has the same values as the check."""
    found = [
        capacity(NoBatching(), EACH, 0.05, quantile=quantile, requests=500)
        for quantile in get_args(Quantile)
    ]

    assert all(0 < rate < 110 for rate in found)


# -- how many replicas --------------------------------------------------------------------


@pytest.mark.parametrize("dispatch", get_args(Dispatch))
@pytest.mark.parametrize("rate", [30.0, 500.0])
def test_a_plan_is_the_fewest_that_hold(dispatch: Dispatch, rate: float) -> None:
    """The objective holds with the result, and fails with one replica less."""
    options: dict[str, Any] = {"lengths": MIXED, "dispatch": dispatch, "requests": 4000}
    found = plan(LengthAware(), COST, rate, 0.15, **options)
    assert found.replicas is not None
    enough = simulated(LengthAware(), rate, replicas=found.replicas, **options)

    assert holds(enough, 0.15)
    assert found.report.latency == enough.latency
    assert found.report.replicas == found.replicas
    if found.replicas > 1:
        fewer = simulated(LengthAware(), rate, replicas=found.replicas - 1, **options)
        assert not holds(fewer, 0.15)


@pytest.mark.parametrize("needed", [1, 2, 3, 6, 7, 11])
def test_every_number_can_be_found(needed: int) -> None:
    """The result may be any number, not only a power of two."""
    # One less can do 60 a second less than what arrives, and falls behind for good.
    found = plan(NoBatching(), EACH, 100.0 * needed - 40.0, 0.2)

    assert found.replicas == needed


def test_more_time_needs_no_more_replicas() -> None:
    """A looser objective needs fewer replicas."""
    found = [
        plan(LengthAware(), COST, 600.0, objective, lengths=MIXED, requests=3000).replicas
        for objective in (0.05, 0.08, 0.1, 0.2, 0.5)
    ]
    numbers = [number for number in found if number is not None]

    assert len(numbers) == len(found)
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[-1]


def test_a_plan_says_what_it_is() -> None:
    """One sentence has the replicas, load, objective and expected latency."""
    found = plan(NoBatching(), EACH, 150.0, 0.05, quantile="p95", requests=3000)

    assert isinstance(found, Plan)
    assert repr(found) == (
        f"{found.replicas} x NoBatching() (shared) for 150 requests/s with p95 under 50.0 ms: "
        f"p95 {found.report.latency.p95 * 1e3:.1f} ms, {found.report.utilisation:.0%} busy"
    )
    assert (found.rate, found.objective, found.quantile, found.dispatch) == (
        *(150.0, 0.05, "p95", "shared"),
    )


def test_a_plan_that_nothing_fulfils_says_so() -> None:
    """If a single request takes too long, there is no number of replicas."""
    found = plan(Greedy(8), EACH, 20.0, 0.005, requests=200)

    assert found.replicas is None
    assert found.report.replicas == MOST_REPLICAS
    assert repr(found) == (
        "no number of replicas of Greedy(max_batch_size=8) holds p99 under 5.0 ms at 20 requests/s"
    )


def test_a_plan_is_the_same_each_time() -> None:
    """Equal arguments give equal plans."""
    one, same = (
        plan(Greedy(4), COST, 300.0, 0.2, lengths=MIXED, dispatch="random", requests=3000)
        for _ in range(2)
    )

    assert repr(one) == repr(same)
    assert one.report.latency == same.report.latency


@pytest.mark.parametrize(
    "options", [{"rate": 0.0}, {"rate": -1.0}, {"dispatch": "nearest"}, {"requests": 0}]
)
def test_wrong_options_of_a_plan_are_rejected(options: dict[str, Any]) -> None:
    """Wrong options raise as in `simulate` and its traffic."""
    given: dict[str, Any] = {"rate": 10.0, "objective": 0.1, **options}
    with pytest.raises(OptionError, match=next(iter(options))):
        plan(Greedy(), EACH, **given)


# -- what is doubtful ---------------------------------------------------------------------

#: a bad fit, to small batches
BAD = CostModel(
    0.0065, 0.0004, 0.00017, error=0.69, batches=12, warnings=("only 12 batches",), largest=4
)
MISFIT = (
    "The cost model does not fit: its typical error is 69%, so these figures may be off by a "
    "factor of 2."
)


def test_a_capacity_has_the_doubts_of_its_cost_model() -> None:
    """The most serious warning comes first in a cell; the result stays a number."""
    found = capacity(Greedy(16), BAD, 0.25, lengths=20, requests=1000)
    lines = str(found).splitlines()

    assert found.warnings == (
        MISFIT,
        "The cost model is in doubt: only 12 batches.",
        "Batches were larger than the 4 requests that the cost model was fitted to: their cost is "
        "extrapolated.",
    )
    assert lines[1:] == [f"warning: {said}" for said in found.warnings]
    assert lines == repr(found).splitlines()
    assert found._repr_mimebundle_()["text/plain"] == str(found)
    assert MISFIT in found._repr_mimebundle_()["text/html"]
    assert found + 0.0 == pytest.approx(float(found))


def test_a_capacity_that_is_not_known_well_is_a_range() -> None:
    """A bad fit gives one digit and a range, and a good one all digits."""
    rough = Capacity(42.3, factor=2.0)

    assert str(rough) == "≈40/s (21/s to 85/s)"
    assert str(Capacity(42.34)) == "42.3/s"
    assert str(Capacity(1642.34)) == "1642/s"
    assert [str(Capacity(rate, factor=2.0)) for rate in (0.0, math.inf)] == ["no load", "any load"]


def test_a_capacity_can_be_kept() -> None:
    """Copies keep the warnings, and other tools see a number."""
    found = Capacity(42.0, factor=2.0, warnings=["Doubtful."])
    again = pickle.loads(pickle.dumps(found))

    assert (again, again.factor, again.warnings) == (42.0, 2.0, ("Doubtful.",))
    assert copy.copy(found).warnings == found.warnings
    assert json.loads(json.dumps(found)) == 42.0
    assert f"{found:.1f}" == "42.0"


def test_a_capacity_without_doubts_says_nothing() -> None:
    """A model that was not fitted has no warnings."""
    found = capacity(Greedy(4), COST, 0.25, lengths=20, requests=1000)

    assert found.warnings == ()
    assert found.factor == 1
    assert "\n" not in repr(found)


@pytest.mark.parametrize("objective", [0.001, 1000.0])
def test_also_no_load_and_any_load_are_doubtful(objective: float) -> None:
    """A bad fit is reported with every result."""
    found = capacity(Greedy(16), BAD, objective, requests=200)

    assert found in (0.0, math.inf)
    assert found.warnings[0] == MISFIT


def test_a_plan_has_the_doubts_of_its_cost_model() -> None:
    """A plan shows one digit of results that depend on a bad fit."""
    found = plan(LengthAware(16), BAD, 300.0, 0.25, lengths=20, requests=2000)
    lines = repr(found).splitlines()

    assert lines[0].startswith("about ")
    assert re.search(r": p99 ≈\d00? ms, ≈\d+0% busy$", lines[0])
    assert lines[1] == f"warning: {MISFIT}"
    assert found.warnings == found.report.notes
    assert plan(LengthAware(16), COST, 300.0, 0.25, lengths=20, requests=2000).warnings == ()


def test_a_plan_that_fails_has_them_too() -> None:
    """A bad fit may be the reason why no number is enough, so the warning is shown."""
    found = plan(NoBatching(), BAD, 100.0, 0.001, requests=200)

    assert repr(found).splitlines()[0].startswith("no number of replicas")
    assert MISFIT in repr(found)
