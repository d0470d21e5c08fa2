"""The metrics of ``GET /metrics``: statistics of every model, for Prometheus.

Needs the extra ``metrics``, so only the route imports this module. Nothing is counted here: each
scrape reads the counts that the engines keep for `stats`.
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

#: help text and value of each counter, by name without prefix
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
    """The metrics of a server's models and of its process, as text."""

    def __init__(self, engines: EngineRegistry) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Collector(engines))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type, in the newest format that `accept` allows."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class Collector:
    """A collector that reads the engines' counts since their start, at each scrape."""

    def __init__(self, engines: EngineRegistry) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """Yield each metric, with the values of every model."""
        engines = list(self._engines.values())
        recorders = [(engine.name, engine.requests.copy_recorder()) for engine in engines]
        yield _requests(recorders)
        yield _batches(recorders)
        for name, (text, count) in COUNTERS.items():
            family = CounterMetricFamily(PREFIX + name, text, labels=["model"])
            yield _fill(family, [(model, count(recorder)) for model, recorder in recorders])
        for name, (text, histogram) in HISTOGRAMS.items():
            yield _histogram(name, text, [(model, histogram(r)) for model, r in recorders])
        depths = [(model, recorder.depth) for model, recorder in recorders]
        yield _gauge("queue_depth", "Accepted requests that have not started to run.", depths)
        limits = [(engine.name, engine.admission.max_queue_size) for engine in engines]
        yield _gauge("queue_limit", "Requests that may wait before more are rejected.", limits)
        yield _states(engines)
        yield _model_info(engines)


def _requests(recorders: Sequence[tuple[str, Recorder]]) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "requests", "Requests by outcome.", labels=["model", "outcome"]
    )
    for model, recorder in recorders:
        for outcome in OUTCOMES:
            family.add_metric([model, outcome], recorder.outcomes[outcome])
    return family


def _batches(recorders: Sequence[tuple[str, Recorder]]) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "batches", "Batches by the reason for their release.", labels=["model", "reason"]
    )
    for model, recorder in recorders:
        for reason, count in recorder.reasons.items():
            family.add_metric([model, reason], count)
    return family


def _fill(family: F, values: Sequence[tuple[str, float]]) -> F:
    for model, value in values:
        family.add_metric([model], value)
    return family


def _gauge(name: str, text: str, values: Sequence[tuple[str, float]]) -> Metric:
    return _fill(GaugeMetricFamily(PREFIX + name, text, labels=["model"]), values)


def _histogram(name: str, text: str, values: Sequence[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=["model"])
    for model, histogram in values:
        buckets = [(_number(bound), count) for bound, count in histogram.cumulative()]
        family.add_metric([model], buckets, histogram.sum)
    return family


def _number(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _states(engines: Sequence[Engine]) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "state", "1 for the current state of a model, else 0.", labels=["model", "state"]
    )
    for engine in engines:
        now = engine.state
        for state in URGENCY:
            family.add_metric([engine.name, state], float(state == now))
    return family


def _model_info(engines: Sequence[Engine]) -> Metric:
    family = InfoMetricFamily(
        PREFIX + "model", "The task, the weights and the policy of a model.", labels=["model"]
    )
    for engine in engines:
        facts = summarize(engine)
        info = {
            "task": facts["task"] or "",
            "loaded": facts["model"] or "",
            "policy": facts["policy"],
        }
        family.add_metric([engine.name], info)
    return family
