"""Aggregate statistics of several models."""

from __future__ import annotations

import math
from typing import Any

import pytest

from notebook_serve import LastError, Stats
from notebook_serve.display import STATES
from notebook_serve.queueing.merged_stats import URGENCY, merge_stats, state_of
from notebook_serve.queueing.stats import Recorder
from notebook_serve.records import BatchRecord, RequestRecord


def recorder(latencies: list[float], lengths: tuple[int, ...], born: float = 0.0) -> Recorder:
    """Return a recorder with answered requests, all of one batch."""
    made = Recorder(born)
    made.enqueued(len(latencies), born)
    for n, latency in enumerate(latencies):
        made.request(RequestRecord(n, 10.0 - latency, 10.0, 10.0, "ok", 1, len(latencies)))
    made.batch(BatchRecord(1, "full", lengths, 10.0, 0.5))
    return made


def stats_of(made: Recorder, **about: Any) -> Stats:
    known: dict[str, Any] = {"state": "ready", "model": "m", "policy": "p", **about}
    return made.stats(11.0, running_since=None, **known)


def test_the_whole_is_the_sum_of_its_models() -> None:
    """Counts and rates add up; distributions, batch size and padding cover all models."""
    first, second = recorder([1.0, 2.0, 3.0], (4, 8)), recorder([10.0], (6,), born=5.0)
    models = {"a": stats_of(first), "b": stats_of(second, state="paused", error="slow")}
    whole = merge_stats(models, [first, second])

    assert whole.outcomes["ok"] == 4
    assert whole.latency.p50 == pytest.approx(2.5)
    assert whole.throughput == pytest.approx(0.3 + 1 / 6)
    assert whole.batch_sizes == {1: 1, 2: 1}
    assert whole.reasons == {"full": 2}
    assert whole.mean_batch_size == 1.5
    assert whole.padding == pytest.approx(1 - 18 / 22)
    assert (whole.queue_depth, whole.queue_peak, whole.uptime) == (4, 3, 11.0)
    assert whole.utilisation == pytest.approx((0.05 + 0.5 / 6) / 2)
    assert (whole.state, whole.error) == ("paused", "b: slow")
    assert (whole.model, whole.policy) == ("a: m; b: m", "a: p; b: p")
    assert whole.models == models


def test_models_that_did_nothing_are_no_error() -> None:
    """Without answers, times are not-a-number and counts are 0."""
    idle = [Recorder(0.0), Recorder(0.0)]
    whole = merge_stats({str(n): stats_of(made) for n, made in enumerate(idle)}, idle)

    assert math.isnan(whole.latency.p50)
    assert math.isnan(whole.mean_batch_size)
    assert set(whole.outcomes.values()) == {0}
    assert whole.to_dict()["models"]["1"]["latency"]["p50"] is None


def test_the_most_urgent_state_is_shown() -> None:
    """Every state has a rank, and a healthy worker never hides a dead one."""
    assert sorted(URGENCY) == sorted(STATES)
    assert state_of(["ready", "dead", "paused"]) == "dead"
    assert state_of(["ready", "paused"]) == "paused"
    assert state_of(["ready", "failing", "paused", "loading"]) == "failing"
    assert state_of(["ready"]) == "ready"


def test_the_aggregate_names_the_failing_model() -> None:
    """The newest error of all models is shown, and the table names each failing model."""
    old = LastError("a", "KeyError", "'x'", 9.0, 4, "17", "next of a")
    new = LastError("b", "OSError", "no disk", 1.0, 1, "3", "next of b")
    made = Recorder(0.0)
    models = {
        "a": stats_of(made, state="failing", failing=old, last_error=old, warnings=("slow",)),
        "b": stats_of(made, state="failing", failing=new, last_error=new, queue_limit=5),
        "c": stats_of(made),
    }
    whole = merge_stats(models, [made] * 3)

    assert (whole.state, whole.failing, whole.last_error) == ("failing", new, new)
    assert whole.all_failing == (old, new)
    assert whole.warnings == ("a: slow",)
    assert whole.queue_limit is None
    assert {"failing: a", "next: a", "failing: b", "next: b"} <= {
        line.split("  ")[0] for line in repr(whole).splitlines()
    }
    assert "OSError: no disk (1 request failed, last 1.00 s ago, request 3)" in repr(whole)


def test_active_time_is_of_each_model() -> None:
    """Two models may be active at the same time, so the aggregate refers to each."""
    made = recorder([1.0, 2.0], (4, 8))
    made.closed(2, 4.0)
    whole = merge_stats({"a": stats_of(made), "b": stats_of(made)}, [made, made])
    line = next(line for line in repr(whole).splitlines() if "throughput while" in line)

    assert math.isnan(whole.active_throughput)
    assert whole.models["a"].active_throughput == 0.5
    assert line.endswith("see each model")
    assert whole.to_dict()["active"] is None
