"""Inspection of a running engine: the statistics of its workers, and warnings."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from ..models.functions.function_model import FunctionModel
from ..queueing.policies import Policy, label
from ..queueing.stats import LastError, Recorder, Stats, WorkerStats
from ..workers.executors import Executor
from .admission import Admission
from .batch_runner import BatchRunner
from .failures import BatchFailures
from .health import Health


def collect_stats(
    recorder: Recorder,
    running: Mapping[int, float],
    runner: BatchRunner,
    admission: Admission,
    health: Health,
    *,
    state: str,
    policy: Policy,
    error: str,
    failing: LastError | None,
    warnings: Sequence[str],
) -> Stats:
    """Return statistics as of now from a snapshot of the records and of the running batches."""
    now, limit = time.monotonic(), runner.memory.limit
    return recorder.stats(
        now,
        running_since=running.get(0),
        workers=_worker_stats(runner.executors, running, recorder, now),
        state=state,
        model="not loaded" if runner.model is None else runner.model.name,
        policy=label(policy),
        breaker=admission.breaker.state,
        memory_ceiling=None if limit == math.inf else int(limit),
        error=error,
        queue_limit=admission.max_queue_size,
        failing=failing,
        last_error=health.last_error,
        warnings=tuple(warnings),
    )


def _worker_stats(
    executors: Sequence[Executor], running: Mapping[int, float], recorder: Recorder, now: float
) -> tuple[WorkerStats, ...]:
    """Return the statistics of each worker; `running` is when each busy one began its batch."""
    return tuple(
        _stats_of(number, executor, running.get(number), recorder, now)
        for number, executor in enumerate(executors)
    )


def _stats_of(
    number: int, executor: Executor, since: float | None, recorder: Recorder, now: float
) -> WorkerStats:
    return WorkerStats(
        number=number,
        kind=executor.kind,
        device=executor.device,
        pid=executor.pid(),
        batches=recorder.worker_batches[number],
        requests=recorder.worker_requests[number],
        utilisation=recorder.utilisation(now, since, number),
        restarts=executor.restarts(),
        busy=recorder.worker_seconds.get(number, 0.0) + (0.0 if since is None else now - since),
    )


def find_warnings(runner: BatchRunner, health: Health) -> list[str]:
    """Return sentences about what slows the server down."""
    own = [
        _warn_of_memory(runner.memory.limit),
        _warn_of_restarts(runner.executors),
        _warn_of_batches(runner, health.batches),
    ]
    slow = [sentence for executor in runner.executors for sentence in executor.warnings()]
    return [sentence for sentence in dict.fromkeys([*own, *slow]) if sentence]


def _warn_of_memory(limit: float) -> str:
    if limit == math.inf:
        return ""
    return f"A batch ran out of memory: batches are limited to {int(limit):,} padded tokens."


def _warn_of_restarts(executors: Sequence[Executor]) -> str:
    reasons: Counter[str] = Counter()
    for executor in executors:
        reasons.update(executor.restarts())
    if not reasons:
        return ""
    said = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
    return f"A worker process ended and was started again ({said})."


def _warn_of_batches(runner: BatchRunner, failures: BatchFailures) -> str:
    name = "" if runner.model is None else runner.model.name
    if not isinstance(runner.model, FunctionModel):
        return failures.warning(name)
    function = name if name.isidentifier() else "..."
    advice = f"; return one output per input, or serve(each({function}))"
    return failures.warning(name, advice)
