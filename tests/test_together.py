"""The statistics of several models as those of one server."""

from __future__ import annotations

import math
from typing import Any

import pytest

from notebook_serve import Stats
from notebook_serve.display import STATES
from notebook_serve.jobs import BatchRecord, RequestRecord
from notebook_serve.stats import Recorder
from notebook_serve.together import URGENCY, state_of, together


def recorder(latencies: list[float], lengths: tuple[int, ...], born: float = 0.0) -> Recorder:
    """What answered requests, all of one batch, and was born then."""
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
    """Counts and rates add up; distributions, batch size and padding are over all that ran."""
    first, second = recorder([1.0, 2.0, 3.0], (4, 8)), recorder([10.0], (6,), born=5.0)
    models = {"a": stats_of(first), "b": stats_of(second, state="paused", error="slow")}
    whole = together(models, [first, second])

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
    """Then there is nothing to say of times, and every count is 0."""
    idle = [Recorder(0.0), Recorder(0.0)]
    whole = together({str(n): stats_of(made) for n, made in enumerate(idle)}, idle)

    assert math.isnan(whole.latency.p50)
    assert math.isnan(whole.mean_batch_size)
    assert set(whole.outcomes.values()) == {0}
    assert whole.to_dict()["models"]["1"]["latency"]["p50"] is None


def test_what_is_worst_is_told_first() -> None:
    """Every state has a place, and a dead worker is never hidden behind one that is well."""
    assert sorted(URGENCY) == sorted(STATES)
    assert state_of(["ready", "dead", "paused"]) == "dead"
    assert state_of(["ready", "paused"]) == "paused"
    assert state_of(["ready"]) == "ready"
