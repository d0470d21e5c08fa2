"""What ``GET /metrics`` answers: the statistics of every model, for Prometheus.

Needs the extra ``metrics``; so nothing imports this file but the endpoint. Nothing is counted here:
each scrape reads the counts that the engines keep for `stats` anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from ...engine.engine import Engine
from ...engine.registry import EngineRegistry, summarize
from ...queueing.histogram import Histogram
from ...queueing.merged_stats import URGENCY
from ...queueing.stats import Recorder
from ...records import OUTCOMES

F = TypeVar("F", CounterMetricFamily, GaugeMetricFamily)

PREFIX = "notebook_serve_"

#: how much of a recorder is counted, by the name of its metric
COUNTERS: dict[str, tuple[str, Callable[[Recorder], float]]] = {
    "tokens": ("Tokens of the inputs that ran, without padding.", lambda r: r.tokens),
    "padded_tokens": ("Tokens computed, padding included.", lambda r: r.padded_tokens),
    "worker_busy_seconds": ("Seconds that batches ran.", lambda r: r.busy),
}
HISTOGRAMS: dict[str, tuple[str, Callable[[Recorder], Histogram]]] = {
    "request_queue_seconds": (
        "Seconds that answered requests waited until their batch started.",
        lambda r: r.queue_times,
    ),
    "request_inference_seconds": (
        "Seconds that the batches of answered requests ran.",
        lambda r: r.inference_times,
    ),
    "request_latency_seconds": (
        "Seconds from the arrival of answered requests to their answer.",
        lambda r: r.latencies,
    ),
    "batch_size": ("Requests that shared a batch.", lambda r: r.sizes),
    "batch_padding_ratio": (
        "Share of the tokens computed for a batch that was padding.",
        lambda r: r.paddings,
    ),
}


class Exposition:
    """The metrics of a server's models, and of its process."""

    def __init__(self, engines: EngineRegistry) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Collector(engines))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text and its content type: the newest format that `accept` allows."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class Collector:
    """Reads what the engines have counted since the start; whoever scrapes works, nobody else."""

    def __init__(self, engines: EngineRegistry) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """Each metric, with the values of every model."""
        engines = list(self._engines.values())
        recorders = [(engine.name, engine.recorded()) for engine in engines]
        yield _requests(recorders)
        yield _batches(recorders)
        for name, (said, count) in COUNTERS.items():
            family = CounterMetricFamily(PREFIX + name, said, labels=["model"])
            yield _filled(family, [(model, count(recorder)) for model, recorder in recorders])
        for name, (said, histogram) in HISTOGRAMS.items():
            yield _histogram(name, said, [(model, histogram(r)) for model, r in recorders])
        depths = [(model, recorder.depth) for model, recorder in recorders]
        yield _gauge("queue_depth", "Requests accepted that have not started to run.", depths)
        limits = [(engine.name, engine.max_queue_size) for engine in engines]
        yield _gauge("queue_limit", "Requests that may wait before more are refused.", limits)
        yield _states(engines)
        yield _about(engines)


def _requests(recorders: Sequence[tuple[str, Recorder]]) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "requests", "Requests by how they ended.", labels=["model", "outcome"]
    )
    for model, recorder in recorders:
        for outcome in OUTCOMES:
            family.add_metric([model, outcome], recorder.outcomes[outcome])
    return family


def _batches(recorders: Sequence[tuple[str, Recorder]]) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "batches", "Batches by why they were released.", labels=["model", "reason"]
    )
    for model, recorder in recorders:
        for reason, count in recorder.reasons.items():
            family.add_metric([model, reason], count)
    return family


def _filled(family: F, values: Sequence[tuple[str, float]]) -> F:
    for model, value in values:
        family.add_metric([model], value)
    return family


def _gauge(name: str, said: str, values: Sequence[tuple[str, float]]) -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, said, labels=["model"]), values)


def _histogram(name: str, said: str, values: Sequence[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, said, labels=["model"])
    for model, histogram in values:
        buckets = [(_number(bound), count) for bound, count in histogram.cumulative()]
        family.add_metric([model], buckets, histogram.sum)
    return family


def _number(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _states(engines: Sequence[Engine]) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "state", "1 for the state that a model is in.", labels=["model", "state"]
    )
    for engine in engines:
        now = engine.state
        for state in URGENCY:
            family.add_metric([engine.name, state], float(state == now))
    return family


def _about(engines: Sequence[Engine]) -> Metric:
    family = InfoMetricFamily(PREFIX + "model", "What a model is.", labels=["model"])
    for engine in engines:
        said = summarize(engine)
        about = {
            "task": said["task"] or "",
            "loaded": said["model"] or "",
            "policy": said["policy"],
        }
        family.add_metric([engine.name], about)
    return family
