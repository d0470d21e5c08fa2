"""Aggregate statistics of a server with several models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from .stats import LastError, Recorder, Stats, distributions

T = TypeVar("T")

#: states by urgency; the most urgent state of its models is the state of the server
URGENCY = (
    *("dead", "failed", "failing", "loading", "stopping", "paused"),
    *("ready", "new", "stopped"),
)
BREAKERS = ("open", "probing", "closed")


def state_of(states: Iterable[str]) -> str:
    """Return the state of a server with models in `states`: the most urgent of them."""
    return min(states, key=URGENCY.index)


def merge_stats(models: Mapping[str, Stats], recorders: Sequence[Recorder]) -> Stats:
    """Return the aggregate statistics of several models, with those of each model in `models`.

    Counts and rates are sums. Distributions cover the newest answers of all models. `utilisation`
    is the mean, and `queue_peak` the maximum, over the models. Each model has its own queue limit
    and active time, so the aggregate has neither. Its errors are the newest of all models.
    `recorders` are those from which `models` were computed.
    """
    each = list(models.values())
    tokens = sum(recorder.tokens for recorder in recorders)
    padded = sum(recorder.padded_tokens for recorder in recorders)
    sizes = _sum(recorder.batch_sizes for recorder in recorders)
    aggregate = Recorder(0.0, batch_sizes=sizes, tokens=tokens, padded_tokens=padded)
    ceilings = [stats.memory_ceiling for stats in each if stats.memory_ceiling is not None]
    records = (record for recorder in recorders for record in recorder.requests)
    latency, queue_time, inference_time = distributions(records)
    return Stats(
        state=state_of(stats.state for stats in each),
        model=_join({name: stats.model for name, stats in models.items()}),
        policy=_join({name: stats.policy for name, stats in models.items()}),
        uptime=max(stats.uptime for stats in each),
        outcomes=dict(_sum(stats.outcomes for stats in each)),
        throughput=sum(stats.throughput for stats in each),
        latency=latency,
        queue_time=queue_time,
        inference_time=inference_time,
        queue_depth=sum(stats.queue_depth for stats in each),
        queue_peak=max(stats.queue_peak for stats in each),
        batch_sizes=dict(sorted(sizes.items())),
        reasons=dict(_sum(stats.reasons for stats in each)),
        mean_batch_size=aggregate.mean_batch_size,
        padding=aggregate.padding,
        utilisation=fmean(stats.utilisation for stats in each),
        breaker=min((stats.breaker for stats in each), key=BREAKERS.index),
        memory_ceiling=min(ceilings, default=None),
        workers=tuple(worker for stats in each for worker in stats.workers),
        restarts=dict(_sum(stats.restarts for stats in each)),
        error=_join({name: stats.error for name, stats in models.items() if stats.error}),
        models=models,
        failing=_newest(stats.failing for stats in each),
        last_error=_newest(stats.last_error for stats in each),
        warnings=tuple(
            f"{name}: {sentence}" for name, stats in models.items() for sentence in stats.warnings
        ),
    )


def _newest(errors: Iterable[LastError | None]) -> LastError | None:
    return min((error for error in errors if error), key=lambda error: error.ago, default=None)


def _sum(counts: Iterable[Mapping[T, int]]) -> Counter[T]:
    total: Counter[T] = Counter()
    for part in counts:
        total.update(part)
    return total


def _join(texts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in texts.items())
