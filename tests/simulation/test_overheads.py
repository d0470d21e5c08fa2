"""Overheads of a server: estimated from records, and simulated."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_serve import (
    BatchRecord,
    CostModel,
    Greedy,
    NoBatching,
    Report,
    RequestRecord,
    simulate,
    traffic,
)
from notebook_serve.queueing.policies import LengthAware, Policy, Window
from notebook_serve.simulation.overheads import FEW, with_overheads

COST = CostModel(fixed=0.010, per_token=0.0002)
BESIDES = replace(COST, turnaround=0.003, handling=0.002, answering=0.001, per_answer=0.0005)
HELD_UP = replace(COST, per_arrival=0.001)


def simulated(policy: Policy, cost: CostModel, rate: float, **options: Any) -> Report:
    return simulate(policy, traffic.Poisson(rate, n=2000), cost, lengths=10, **options)


@pytest.mark.parametrize("policy", [NoBatching(), Greedy(4), LengthAware(8)])
def test_what_was_simulated_is_found_again(policy: Policy) -> None:
    """The estimates from a run equal the overheads that it simulated."""
    report = simulated(policy, BESIDES, 60.0)
    found = with_overheads(COST, report.records, report.batches)

    assert found.turnaround == pytest.approx(BESIDES.turnaround)
    assert found.handling == pytest.approx(BESIDES.handling)
    one = policy == NoBatching()  # then what is for the batch and for its request is one
    said, meant = (
        (cost.answering + cost.per_answer if one else cost.answering, 0 if one else cost.per_answer)
        for cost in (found, BESIDES)
    )
    assert said == pytest.approx(meant)


def test_a_policy_that_waits_is_not_taken_for_handling() -> None:
    """The wait of a window is the policy's decision, not an overhead."""
    report = simulated(Window(16, 0.050), BESIDES, 20.0)

    assert with_overheads(COST, report.records, report.batches).handling < 0.01


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_few_cases_say_nothing(count: int) -> None:
    """Fewer than `FEW` cases give no estimate."""
    seconds = [float(n) for n in range(count)]
    batches = [
        BatchRecord(n, "idle", (1,), started=at, seconds=0.5) for n, at in enumerate(seconds)
    ]
    idle = [RequestRecord(n, at - 0.25, at, at + 0.5, "ok", n) for n, at in enumerate(seconds)]
    busy = [RequestRecord(n, at - 0.75, at, at + 0.5, "ok", n) for n, at in enumerate(seconds)]

    assert with_overheads(COST, idle, batches).handling == (0.25 if count > FEW else 0.0)
    assert with_overheads(COST, busy, batches).turnaround == (0.5 if count > FEW else 0.0)
    assert with_overheads(COST, [], batches).turnaround == 0.0


def test_handling_delays_every_request_and_no_batch() -> None:
    """Answers are delayed, and their number is the same."""
    before, after = (
        simulated(Greedy(8), COST, 50.0),
        simulated(Greedy(8), replace(COST, handling=0.005), 50.0),
    )

    assert after.latency.p50 == pytest.approx(before.latency.p50 + 0.005)
    assert after.queue_time.p99 == pytest.approx(before.queue_time.p99 + 0.005)
    assert after.inference_time.mean == pytest.approx(before.inference_time.mean)
    assert after.throughput == pytest.approx(before.throughput, rel=0.01)


def test_answering_takes_longer_for_larger_batches_and_delays_none() -> None:
    """Three requests at once and one alone, each batch with its own seconds."""
    cost = replace(COST, answering=0.002, per_answer=0.001)
    report = simulate(Greedy(3), [0.0, 0.0, 0.0, 1.0], cost, lengths=10)

    assert list(report.records.finished) == pytest.approx([0.016 + 0.005] * 3 + [1.012 + 0.003])
    assert [batch.seconds for batch in report.batches] == pytest.approx([0.016, 0.012])


def test_turnaround_lowers_what_can_be_done() -> None:
    """Under overload a worker takes the seconds of a batch plus the turnaround."""
    report = simulated(NoBatching(), replace(COST, turnaround=0.004), 1000.0)

    assert report.throughput == pytest.approx(1 / (0.012 + 0.004), rel=0.01)
    assert report.inference_time.mean == pytest.approx(0.012)


@given(st.floats(0, 0.02), st.floats(0, 0.02), st.sampled_from([NoBatching(), Greedy(3)]))
def test_both_ways_through_the_simulator_agree(slow: float, handled: float, policy: Policy) -> None:
    """The recursion gives the same as the events, which a large queue limit forces."""
    cost = replace(COST, turnaround=slow, handling=handled, answering=slow / 2, per_answer=0.001)
    events, recursion = (
        simulated(policy, cost, 70.0, max_queue_size=limit) for limit in (1e9, math.inf)
    )

    assert events.records.finished == pytest.approx(recursion.records.finished)
    assert events.records.started == pytest.approx(recursion.records.started)
    assert list(events.batches) == list(recursion.batches)


def test_a_closed_loop_feels_them() -> None:
    """A client of a closed loop waits for its answer."""
    report = simulate(NoBatching(), traffic.ClosedLoop(1), BESIDES, lengths=10, duration=30.0)

    # When the client sends again the worker is free: 3 ms after the batch.
    latency = 0.012 + BESIDES.handling + BESIDES.answering + BESIDES.per_answer
    assert report.throughput == pytest.approx(1 / latency, rel=0.01)
    assert report.latency.p50 == pytest.approx(latency)


def test_they_are_said_and_kept() -> None:
    """The overheads are in the text and the JSON form."""
    assert "3 ms between two batches, 2 ms to accept a request" in str(BESIDES)
    again = CostModel.from_json(BESIDES.to_json())
    assert (again.turnaround, again.handling) == (0.003, 0.002)
    assert "accept a request; and 1 ms + 0.5 ms per request to answer a batch" in str(BESIDES)
    assert (again.answering, again.per_answer) == (0.001, 0.0005)
    assert "between" not in str(COST)


@pytest.mark.parametrize("policy", [NoBatching(), LengthAware(8), Window(8, 0.005)])
def test_what_an_arrival_takes_from_a_batch_is_found_again(policy: Policy) -> None:
    """The delay is removed from the cost, which is then that of an undisturbed batch."""
    report = simulate(policy, traffic.Poisson(50.0, n=5000), HELD_UP, lengths=10, noise=0.1)
    fitted = CostModel.fit(report.batches)
    found = with_overheads(fitted, report.records, report.batches)

    assert found.per_arrival == pytest.approx(0.001, rel=0.25)
    for lengths in [[10], [10] * 3][: 1 if policy == NoBatching() else 2]:
        assert fitted(lengths) > 1.02 * COST(lengths)
        assert found(lengths) == pytest.approx(COST(lengths), rel=0.02)


def test_where_arrivals_take_nothing_nothing_is_found() -> None:
    """The cost model stays the same."""
    report = simulate(NoBatching(), traffic.Poisson(50.0, n=5000), COST, lengths=10, noise=0.2)
    fitted = CostModel.fit(report.batches)

    assert with_overheads(fitted, report.records, report.batches).per_arrival == 0.0


def test_arrivals_delay_the_running_batch() -> None:
    """Only arrivals during the batch delay it; two workers share the delay."""
    arrivals = [0.0, 0.004, 0.008, 0.5]
    alone = simulate(Greedy(1), arrivals[:1] + arrivals[3:], HELD_UP, lengths=10)
    one = simulate(Greedy(1), arrivals, HELD_UP, lengths=10)
    two = simulate(Greedy(1), arrivals, HELD_UP, lengths=10, replicas=2)

    assert [batch.seconds for batch in alone.batches] == pytest.approx([0.012, 0.012])
    assert one.batches[0].seconds == pytest.approx(0.014)
    assert two.batches[0].seconds == pytest.approx(0.013)


def test_per_arrival_is_part_of_the_text_form() -> None:
    """The delay is in the text and the JSON form."""
    assert str(HELD_UP).endswith("which delays a running batch by 1 ms")
    assert CostModel.from_json(HELD_UP.to_json()).per_arrival == 0.001
