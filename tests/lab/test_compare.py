"""Comparison of policies, simulated and measured."""

from __future__ import annotations

import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from notebook_serve import NotReady, Server
from notebook_serve.errors import OptionError
from notebook_serve.lab.compare import MULTIPLES, Comparison, compare
from notebook_serve.queueing.cost_model import CostModel
from notebook_serve.queueing.jobs import Decision, Job
from notebook_serve.queueing.learned_policies import CostAware
from notebook_serve.queueing.noise import Noise
from notebook_serve.queueing.policies import Greedy, LengthAware, NoBatching, Policy, Window
from notebook_serve.simulation.capacity import capacity
from notebook_serve.simulation.report import Report
from notebook_serve.simulation.simulator import simulate
from notebook_serve.traffic import Cycle, Empirical, Fixed, LogNormal, Poisson

mpl.use("Agg")

Make = Callable[..., Server]

LAW = CostModel(0.0065, 0.0004, 0.00017)
MIXED = LogNormal(22, 0.9, 4, 128)
POLICIES: list[Policy] = [NoBatching(), Greedy(8), LengthAware()]

ROW = (
    *("policy", "source", "rate", "throughput", "goodput", "p50", "p95", "p99", "mean"),
    *("batch_size", "padding", "utilisation", "refused", "expired", "notes"),
)


def compared(policies: Sequence[Policy] = POLICIES, **options: Any) -> Comparison:
    """Return a short comparison by a cost model."""
    options = {"cost": LAW, "rates": [30, 90], "lengths": MIXED, "duration": 10.0, **options}
    return compare(policies, **options)


# -- simulated ----------------------------------------------------------------------------


def test_each_policy_runs_at_each_rate() -> None:
    """Reports are sorted by rate, then by the order of the policies."""
    found = compared(rates=[90, 30])
    expected = [(rate, repr(policy)) for rate in (30, 90) for policy in POLICIES]

    assert [(rate, report.policy) for rate, report in found.reports] == expected
    assert [(row["rate"], row["policy"]) for row in found.rows()] == expected
    assert {report.source for _, report in found.reports} == {"simulated"}
    assert len(found) == 6
    assert found.policies == tuple(POLICIES)


def test_all_policies_get_the_same_traffic() -> None:
    """At each rate, arrivals and lengths are the same for all policies."""
    found = compared(seed=4)
    slow, fast = ([report for at, report in found.reports if at == rate] for rate in (30, 90))
    times = Poisson(30, seed=4).times(10.0)

    for report in slow:
        assert report.records.arrived == times
        assert report.records.length == MIXED.sample(len(times))
    assert {tuple(report.records.arrived) for report in fast} == {
        tuple(Poisson(90, seed=4).times(10.0))
    }


def test_a_report_equals_that_of_simulate() -> None:
    """It does with the same options and seed; a cost model without a fit has no noise."""
    found = compared([Greedy(8)], rates=[90], seed=3, timeout=0.3, replicas=2, dispatch="random")
    expected = simulate(
        Greedy(8),
        Poisson(90, seed=3),
        LAW,
        lengths=MIXED,
        duration=10.0,
        timeout=0.3,
        replicas=2,
        dispatch="random",
        seed=3,
    )
    ((_, report),) = found.reports

    assert report.records.finished == expected.records.finished
    assert report.replicas == 2
    assert report.deadline == 0.3


def test_the_error_of_a_fit_is_the_noise() -> None:
    """An option replaces it."""
    fitted = CostModel(0.0065, 0.0004, 0.00017, error=0.2, batches=50)
    plain, noisy, quiet = (
        compared([Greedy(8)], cost=cost, **options)
        for cost, options in ((LAW, {}), (fitted, {}), (fitted, {"noise": 0.0}))
    )

    assert noisy.options["noise"] == Noise(0.2)
    assert noisy.rows() != plain.rows()
    assert quiet.rows() == plain.rows()


def test_default_rates() -> None:
    """They are multiples of the throughput without batching."""
    found = compare([NoBatching()], cost=LAW, lengths=20, duration=1.0)
    alone = 1 / LAW([20])

    assert [rate for rate, _ in found.reports] == pytest.approx([m * alone for m in MULTIPLES])
    assert found.lengths == Fixed(20)


@pytest.mark.parametrize(
    ("given", "found"), [(None, Fixed(1)), ([3, 5], Cycle([3, 5])), (7, Fixed(7)), (MIXED, MIXED)]
)
def test_lengths_may_have_any_form_that_simulate_accepts(given: Any, found: Any) -> None:
    """They may be a number, a sequence, a distribution or None, which is 1."""
    assert compared([NoBatching()], lengths=given, rates=[5]).lengths == found


def test_any_function_may_be_the_cost() -> None:
    """Without an error there is no noise."""
    found = compare(
        [NoBatching()], cost=lambda lengths: 0.01 * len(lengths), rates=[10], duration=5.0
    )

    assert found.options["noise"] == 0.0
    assert found.rows()[0]["p50"] == pytest.approx(0.01)


# -- forms of a comparison ----------------------------------------------------------------


def test_rows_hold_the_figures_of_the_reports() -> None:
    """They are plain values of each report."""
    found = compared(timeout=0.2, max_queue_size=5)
    for row, (rate, report) in zip(found.rows(), found.reports, strict=True):
        assert tuple(row) == ROW
        assert row["rate"] == rate
        assert row["throughput"] == report.throughput
        assert row["goodput"] == report.goodput
        assert row["p99"] == report.latency.p99
        assert row["batch_size"] == report.mean_batch_size
        assert row["refused"] == report.shares["rejected"]
        assert row["expired"] == report.shares["expired"]

    assert found.rows()[3]["refused"] > 0


def test_it_is_displayed_as_a_table() -> None:
    """It is in a terminal and in a cell."""
    found = compared([NoBatching(), Window(1000, 0.5)], timeout=0.4)
    lines = repr(found).splitlines()
    markup = found._repr_html_()

    assert lines[0] == "4 runs"
    assert lines[1].split() == ["offered", "load,", "per", "second", "30", "90"]
    p99 = lines.index("latency, p99")
    assert lines[p99 + 1].startswith("  NoBatching()  ")
    assert lines[p99 + 2].split()[-2:] == ["–", "–"]  # all requests of this policy expired
    assert "<b>latency, p99</b>" in markup
    assert "nan" not in repr(found)
    assert str(found.table()) == repr(found)


def test_it_is_saved_as_json(tmp_path: Path) -> None:
    """The file has the rows, with null for unknown figures."""
    found = compared([NoBatching(), Window(1000, 0.5)], timeout=0.4)
    found.save(tmp_path / "comparison.json")
    rows = json.loads((tmp_path / "comparison.json").read_text("utf-8"))

    assert rows == json.loads(found.to_json())
    assert rows[1]["p99"] is None
    for kept, row in zip(rows, found.rows(), strict=True):
        assert kept.pop("notes") == row.pop("notes") == []
        known = {key: math.nan if value is None else value for key, value in kept.items()}
        assert known == pytest.approx(row, nan_ok=True)


def test_it_is_a_data_frame() -> None:
    """It has a row for each report and a column for each figure."""
    found = compared()
    frame = found.to_frame()

    assert list(frame.columns) == list(ROW)
    assert list(frame["p99"]) == [row["p99"] for row in found.rows()]


@pytest.fixture
def close_figures() -> Iterator[None]:
    """Close all figures after the test."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_it_is_a_figure(close_figures: None) -> None:
    """Each panel has a line for each policy; the legend names each once."""
    found = compared()
    figure = found.plot()
    named = [text.get_text() for text in figure.legends[0].get_texts()]

    assert named == [repr(policy) for policy in POLICIES]
    assert len(figure.axes) == 6
    for ax in figure.axes:
        assert len(ax.lines) == 3
        assert [np.asarray(line.get_xdata()).tolist() for line in ax.lines] == [[30, 90]] * 3
    assert np.asarray(figure.axes[1].lines[0].get_ydata()).tolist() == [
        1e3 * row["p99"] for row in found.rows()[::3]
    ]
    figure.canvas.draw()


# -- recommendation -----------------------------------------------------------------------


def advising(policies: Sequence[Policy], **options: Any) -> Comparison:
    """Return a comparison with short simulations for its recommendation."""
    return Comparison((), LAW, MIXED, tuple(policies), {"requests": 2000, **options})


def test_the_recommendation_has_the_best_policy_first() -> None:
    """The loads are those of `capacity`."""
    found = compared([NoBatching(), LengthAware()], rates=[20], duration=2.0)
    alone, aware = (
        capacity(policy, LAW, 0.25, lengths=MIXED) for policy in (NoBatching(), LengthAware())
    )

    assert alone < aware
    assert found.recommendation() == (
        f"{LengthAware()!r} holds p99 under 250.0 ms up to {aware:.3g} requests/s; "
        f"NoBatching() up to {alone:.3g}"
    )


@pytest.mark.parametrize("quantile", ["p50", "mean"])
def test_the_objective_may_be_another(quantile: Any) -> None:
    """It has the given seconds and quantile."""
    text = advising([Greedy(4)]).recommendation(0.1, quantile)
    rate = capacity(Greedy(4), LAW, 0.1, quantile=quantile, lengths=MIXED, requests=2000)

    assert text == (
        f"Greedy(max_batch_size=4) holds {quantile} under 100.0 ms up to {rate:.3g} requests/s"
    )


def test_a_recommendation_uses_the_options_of_the_comparison() -> None:
    """They include replicas and noise."""
    options: dict[str, Any] = {"replicas": 2, "noise": 0.3, "requests": 2000}
    text = advising([Greedy(4)], **options).recommendation(0.1)
    rate = capacity(Greedy(4), LAW, 0.1, lengths=MIXED, **options)

    assert f"up to {rate:.3g} requests/s" in text
    assert text != advising([Greedy(4)]).recommendation(0.1)


def test_a_policy_that_holds_no_load() -> None:
    """It comes last; if all hold none, the recommendation says so."""
    some = advising([Window(16, 0.5), NoBatching()])

    assert some.recommendation(0.2).endswith(f"; {Window(16, 0.5)!r} at no load")
    assert some.recommendation(0.2).startswith("NoBatching() holds p99 under 200.0 ms up to ")
    assert some.recommendation(0.001) == "no policy holds p99 under 1.0 ms at any load"


def test_there_is_no_recommendation_without_a_cost_model() -> None:
    """Reports alone do not give other loads."""
    with pytest.raises(OptionError, match="needs a cost model"):
        Comparison(()).recommendation()


# -- warnings -----------------------------------------------------------------------------

#: fitted to small batches of short inputs, and badly
BAD = replace(LAW, error=0.69, batches=12, warnings=("only 12 batches",), largest=2, longest=1000)
MISFIT = (
    "The cost model does not fit: its typical error is 69%, so these figures may be off by a "
    "factor of 2."
)


def test_every_form_has_the_warnings(close_figures: None) -> None:
    """Text, HTML, figure, rows and file have each warning once."""
    found = compared([NoBatching(), Greedy(8)], cost=BAD)
    below: Any = found.plot().get_supxlabel()

    assert found.warnings[0] == MISFIT
    assert len(found.warnings) == len(set(found.warnings)) == 3
    for shown in (repr(found), found._repr_html_(), " ".join(below.split())):
        assert all(shown.count(warning) == 1 for warning in found.warnings)
    for row, kept in zip(found.rows(), json.loads(found.to_json()), strict=True):
        assert row["notes"] == kept["notes"]
        assert MISFIT in row["notes"]
    assert MISFIT in found.to_frame()["notes"][0]


def test_a_comparison_without_a_fitting_cost_model_is_rounded() -> None:
    """Figures have one digit, and none is marked as the best."""
    lines = repr(compared([NoBatching(), Greedy(8)], cost=BAD)).splitlines()
    numbers = [cell for line in lines if line.startswith("  ") for cell in line.split("  ")[2:]]

    assert "≈" in "".join(numbers)
    assert not any(re.search(r"[1-9]\d*\.?[1-9]|\*", cell) for cell in numbers), numbers
    assert compared(cost=LAW).warnings == ()


def test_a_recommendation_without_a_fitting_cost_model_says_so_first() -> None:
    """The loads follow as ranges, then the other warnings."""
    text = replace(advising([NoBatching(), LengthAware()]), cost=BAD).recommendation()

    assert text.startswith(f"{MISFIT} According to it, LengthAware(")
    assert re.search(r"holds p99 under 250.0 ms up to ≈\d+ \(\d+ to \d+\) requests/s; ", text)
    assert re.search(r"; NoBatching\(\) up to ≈\d+ \(\d+ to \d+\)\. The cost model", text)
    assert "only 12 batches." in text
    assert "larger than the 2 requests" in text


def test_a_recommendation_of_no_policy_has_its_warnings() -> None:
    """The cost model may be wrong there too."""
    text = replace(advising([NoBatching()]), cost=BAD).recommendation(0.001)

    assert text.startswith(f"{MISFIT} According to it, no policy holds p99 under 1.0 ms")


def test_other_warnings_of_a_recommendation_come_last() -> None:
    """They follow the sentence on the policies."""
    law = replace(LAW, error=0.1, batches=12, warnings=("only 12 batches",))
    text = replace(advising([NoBatching()]), cost=law).recommendation()

    assert text.startswith("NoBatching() holds p99 under 250.0 ms up to ")
    assert text.endswith(" requests/s. The cost model is in doubt: only 12 batches.")


# -- on a server --------------------------------------------------------------------------


def shout(inputs: list[str]) -> list[str]:
    return [text.upper() for text in inputs]


shout.length = len  # type: ignore[attr-defined]

INPUTS = ["a", "bb", "cccc", "dddddddd", "eeeee"]
LENGTHS = [len(text) for text in INPUTS]


def test_a_server_gives_cost_lengths_and_limits(make: Make) -> None:
    """They are those of its records and options; without inputs, no request is sent to it."""
    server = make(shout, timeout=7.0, max_queue_size=77, refuse_late=False)
    server.predict(INPUTS * 5)
    found = compare([NoBatching(), Greedy(4)], server=server, rates=[50], duration=2.0)

    assert len(server.records()) == 25
    assert isinstance(found.cost, CostModel)
    assert found.cost.batches == len(server.batches())
    assert isinstance(found.lengths, Empirical)
    assert sorted(found.lengths.data) == sorted(LENGTHS * 5)
    assert [report.deadline for _, report in found.reports] == [7.0, 7.0]
    assert {**server.limits, "noise": found.cost.noise} == found.options
    assert server.policy == CostAware()


def test_given_values_take_precedence_over_the_servers(make: Make) -> None:
    """Cost, lengths and limits may be given."""
    server = make(shout)
    server.predict("x")
    found = compare(
        [Greedy(4)], server=server, cost=LAW, lengths=9, rates=[50], timeout=0.5, duration=2.0
    )

    assert (found.cost, found.lengths, found.options["timeout"]) == (LAW, Fixed(9), 0.5)


def test_a_server_is_measured_beside_its_simulation(make: Make) -> None:
    """With inputs, both have the same arrivals and lengths."""
    server = make(shout, policy=Greedy(3))
    found = compare(
        [Greedy(4), NoBatching()],
        server=server,
        rates=[40, 80],
        inputs=INPUTS,
        measured=0.4,
        seed=2,
        deadline=0.5,
        progress=False,
    )
    text = [(rate, report.policy, report.source) for rate, report in found.reports]

    assert text == [
        (rate, repr(policy), source)
        for rate in (40, 80)
        for policy in (Greedy(4), NoBatching())
        for source in ("measured", "simulated")
    ]
    for rate, report in found.reports:
        times = Poisson(rate, seed=2).times(0.4)
        assert report.records.arrived == times
        assert report.records.length == list(islice(cycle(LENGTHS), len(times)))
        assert report.duration == 0.4
        assert report.deadline == 0.5
        assert report.outcomes["ok"] == len(times)
    assert found.lengths == Cycle(LENGTHS)
    assert isinstance(found.cost, CostModel)
    assert server.policy == Greedy(3)


def test_default_rates_of_a_measurement(make: Make) -> None:
    """They follow from the server's records."""
    server = make(shout)
    server.predict(INPUTS * 5)
    found = compare(
        [Greedy(4)],
        server=server,
        cost=CostModel(fixed=0.02),
        inputs=INPUTS,
        measured=0.1,
        progress=False,
    )

    assert [rate for rate, report in found.reports if report.source == "measured"] == (
        pytest.approx([50 * multiple for multiple in MULTIPLES])
    )


def test_measurements_are_crosses(make: Make, close_figures: None) -> None:
    """They have the colour of their policy's line; the legend has both once."""
    server = make(shout)
    found = compare(
        [NoBatching(), Greedy(4)],
        server=server,
        rates=[40, 80],
        inputs=INPUTS,
        measured=0.3,
        progress=False,
    )
    figure = found.plot()
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    lines = {line.get_label(): line for line in figure.axes[0].lines}

    assert sorted(named) == sorted(
        [f"{policy!r}{what}" for policy in found.policies for what in ("", ", measured")]
    )
    for policy in found.policies:
        drawn, crosses = lines[repr(policy)], lines[f"{policy!r}, measured"]
        assert crosses.get_marker() == "x"
        assert crosses.get_linestyle() == "None"
        assert crosses.get_color() == drawn.get_color()
        assert drawn.get_marker() != "x"


class Broken:
    """Policy that raises."""

    max_batch_size = 1

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Fail."""
        raise ZeroDivisionError("broken")


def test_a_failing_policy_is_reported_and_replaced(make: Make) -> None:
    """The queue continues with a fallback, and the server's policy is restored."""
    server = make(shout, policy=Greedy(3))
    found = compare(
        [Broken()], server=server, rates=[40], inputs=INPUTS, measured=0.2, progress=False
    )

    assert server.policy == Greedy(3)
    assert [report.outcomes["ok"] > 0 for _, report in found.reports] == [True, True]
    assert "broken" in found.reports[1][1].notes[0]


# -- interrupts ---------------------------------------------------------------------------


class Interrupting:
    """Model that interrupts the main thread once, while a given policy is measured."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.server: Server | None = None
        self.done = False

    def __call__(self, inputs: list[str]) -> list[str]:
        """Answer, and interrupt the measurement of this policy."""
        if self.server is not None and self.server.policy == self.policy and not self.done:
            self.done = True
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
        return inputs


@pytest.fixture
def handler() -> Iterator[None]:
    """Install Python's handler of SIGINT, which a background job lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_at(policy: Policy, make: Make) -> tuple[Server, Callable[[], Comparison]]:
    """Return a server and a comparison that is interrupted while `policy` is measured."""
    model = Interrupting(policy)
    server = make(model, policy=Greedy(3))
    model.server = server

    def run() -> Comparison:
        return compare(
            [NoBatching(), Greedy(4)],
            server=server,
            rates=[40, 80],
            inputs=INPUTS,
            measured=0.4,
            progress=False,
        )

    return server, run


def test_an_interrupt_ends_the_measuring(make: Make, handler: None) -> None:
    """The comparison has the runs so far and all simulations."""
    server, run = interrupted_at(Greedy(4), make)
    found = run()
    measured: list[Report] = [report for _, report in found.reports if report.source == "measured"]

    assert [report.policy for report in measured] == ["NoBatching()"]
    assert len(found) == 1 + 4
    assert server.policy == Greedy(3)


def test_an_interrupt_before_the_first_measurement_is_raised(make: Make, handler: None) -> None:
    """Nothing can be compared; the server's policy is restored."""
    server, run = interrupted_at(NoBatching(), make)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert server.policy == Greedy(3)


# -- errors -------------------------------------------------------------------------------


def test_invalid_options(make: Make) -> None:
    """Each error names the option, before a request is sent."""
    idle = make(shout)
    with pytest.raises(OptionError, match="policies must not be empty"):
        compared([])
    with pytest.raises(OptionError, match="rates must not be empty"):
        compared(rates=[])
    with pytest.raises(OptionError, match="needs cost=..., or server="):
        compare([Greedy()], rates=[10])
    with pytest.raises(OptionError, match="inputs need a server"):
        compared(inputs=INPUTS)
    with pytest.raises(OptionError, match="no batches"):
        compare([Greedy()], server=idle)
    with pytest.raises(OptionError, match="no records yet"):
        compare([Greedy()], server=idle, cost=LAW)
    with pytest.raises(OptionError, match=r"pass rates=\[...\]"):
        compare([Greedy()], cost=CostModel())
    with pytest.raises(OptionError, match="policy"):
        compared([print])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="rate"):
        compared(rates=[-1])
    with pytest.raises(TypeError, match="replica"):
        compared(replica=2)


def test_a_server_that_does_not_run_cannot_be_measured(make: Make) -> None:
    """It raises the error of a load test, and the policy is restored."""
    server = make(shout, start=False, policy=Greedy(3))

    with pytest.raises(NotReady):
        compare([NoBatching()], server=server, rates=[10], inputs=INPUTS, measured=0.1)
    assert server.policy == Greedy(3)


def test_a_server_that_answers_nothing_has_nothing_to_compare(make: Make) -> None:
    """If every input is invalid, no length is known."""

    def picky(inputs: list[str]) -> list[str]:
        return inputs

    def refuse(text: str) -> int:
        raise ValueError("never")

    picky.length = refuse  # type: ignore[attr-defined]
    server = make(picky)

    with pytest.raises(OptionError, match="answered none of the inputs"):
        compare(
            [Greedy()],
            server=server,
            cost=LAW,
            rates=[20],
            inputs=INPUTS,
            measured=0.2,
            progress=False,
        )


def test_policies_need_different_reprs() -> None:
    """Two of a class without a repr are an error; one is fine, and shows no address."""

    class Own:
        def decide(self, waiting: Sequence[Job], now: float) -> Decision:
            return Decision((waiting[0],))

    with pytest.raises(OptionError, match=r"two policies have the same repr <.*Own>"):
        compare([Own(), Own()], cost=CostModel(0.01), rates=[10.0])
    alone = compare([Own(), Greedy(4)], cost=CostModel(0.01), rates=[10.0], duration=5.0)
    assert "0x" not in alone.to_json()
    assert "Own>" in alone.to_json()
