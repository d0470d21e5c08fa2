from __future__ import annotations

import json
import math
import re
from collections import deque
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.queueing.jobs import Job
from notebook_serve.queueing.stats import (
    KEEP_BATCHES,
    KEEP_REQUESTS,
    MOST_MESSAGE,
    WINDOW,
    Distribution,
    LastError,
    Queue,
    Recorder,
    Stats,
    WorkerStats,
)
from notebook_serve.records import OUTCOMES, BatchRecord, Outcome, RequestRecord

ABOUT: dict[str, Any] = {"state": "ready", "model": "gate", "policy": "Greedy()"}


def ended(
    finished: float, outcome: Outcome = "ok", ran: bool = True, arrived: float | None = None
) -> RequestRecord:
    """Return the record of a request that ended at `finished`."""
    begun = finished - 1 if arrived is None else arrived
    return RequestRecord(1, begun, finished if ran else None, finished, outcome)


def recorder(born: float, *finished: float, keep: int = 1000) -> Recorder:
    """Return a recorder that keeps `keep` requests, with requests answered at these times."""
    made = Recorder(born, requests=deque(maxlen=keep))
    for at in finished:
        made.request(ended(at))
    return made


def ran(started: float, seconds: float, *lengths: int, reason: str = "full") -> BatchRecord:
    """Return the record of a batch."""
    return BatchRecord(1, reason, lengths or (1,), started, seconds)


# -- distributions ------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=150))
def test_percentiles_are_those_of_numpy(values: list[float]) -> None:
    """Percentiles are interpolated linearly, from one value on."""
    made = Distribution.of(iter(values))
    expected = [*np.percentile(values, [50, 90, 95, 99]), np.mean(values)]

    assert list(asdict(made).values()) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_no_values_have_no_distribution() -> None:
    """Without values, percentiles are not-a-number rather than 0."""
    assert all(math.isnan(value) for value in asdict(Distribution.of([])).values())


# -- rates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("born", "finished", "now", "rate"),
    [
        (0.0, (), 100.0, 0.0),
        # the last ten seconds, including their first moment
        (0.0, (91.0, 95.0, 99.0), 100.0, 0.3),
        (0.0, (90.0, 95.0), 100.0, 0.2),
        (0.0, (10.0, 50.0, 89.9, 95.0), 100.0, 0.1),
        (0.0, (10.0, 50.0), 100.0, 0.0),
        # a server younger than that
        (98.0, (98.5, 99.0, 99.5, 100.0), 100.0, 2.0),
        (99.5, (99.75,), 100.0, 2.0),
        # a server that has just started
        (100.0, (), 100.0, 0.0),
        (100.0, (100.0,), 100.0, 0.0),
    ],
)
def test_throughput_is_that_of_the_last_seconds(
    born: float, finished: tuple[float, ...], now: float, rate: float
) -> None:
    """The rate covers the last ten seconds, or the time since the start."""
    made = recorder(born, *finished)

    assert WINDOW == 10.0
    assert made.stats(now, running_since=None, **ABOUT).throughput == pytest.approx(rate)
    assert made.drain_rate(now) == pytest.approx(rate)


def test_a_rate_of_more_than_is_kept_is_right() -> None:
    """If the kept records cover only part of the window, the rate covers that part."""
    made = recorder(0.0, *(90 + n / 100 for n in range(1001)), keep=200)
    stats = made.stats(100.0, running_since=None, **ABOUT)

    assert stats.throughput == pytest.approx(100, rel=0.01)
    assert made.drain_rate(100.0) == pytest.approx(100, rel=0.01)


def test_records_of_long_ago_do_not_lower_the_rate() -> None:
    """If the kept records are older than the window, they do not extend it."""
    made = recorder(0.0, 10.0, 50.0, 95.0, keep=3)
    for started in (10.0, 50.0, 95.0):
        made.batches = deque(made.batches, maxlen=3)
        made.batch(ran(started, 1.0))

    assert made.drain_rate(100.0) == pytest.approx(0.1)
    assert made.utilisation(100.0, None) == pytest.approx(0.1)


def test_refusals_do_not_hide_the_rate_of_answers() -> None:
    """Many rejections push answers out of the records, but not out of the rate."""
    made = Recorder(0.0, requests=deque(maxlen=100))
    for n in range(5000):
        at = 90 + n / 500
        made.request(ended(at, "ok") if n % 50 == 0 else ended(at, "rejected", ran=False))
    stats = made.stats(100.0, running_since=None, **ABOUT)

    assert stats.throughput == pytest.approx(10, rel=0.05)
    assert made.drain_rate(100.0) == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(
    ("outcome", "started", "answered", "drained"),
    [
        ("ok", True, 0.1, 0.1),
        ("failed", True, 0.0, 0.1),
        ("expired", True, 0.0, 0.1),
        ("expired", False, 0.0, 0.0),
        ("cancelled", False, 0.0, 0.0),
        ("rejected", False, 0.0, 0.0),
        ("invalid", False, 0.0, 0.0),
    ],
)
def test_what_counts_as_drained(
    outcome: Outcome, started: bool, answered: float, drained: float
) -> None:
    """Throughput counts answers; the drain rate counts all requests that ran."""
    made = Recorder(0.0)
    made.request(ended(99.0, outcome, ran=started))

    assert made.stats(100.0, running_since=None, **ABOUT).throughput == answered
    assert made.drain_rate(100.0) == drained


# -- utilisation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("born", "batches", "running_since", "now", "share"),
    [
        (0.0, [], None, 100.0, 0.0),
        (0.0, [(95.0, 1.0)], None, 100.0, 0.1),
        (0.0, [(91.0, 2.0), (94.0, 1.0), (96.0, 3.0)], None, 100.0, 0.6),
        # only the overlap with the last ten seconds
        (0.0, [(85.0, 10.0)], None, 100.0, 0.5),
        (0.0, [(80.0, 10.0)], None, 100.0, 0.0),
        (0.0, [(20.0, 60.0), (81.0, 5.0)], None, 100.0, 0.0),
        (0.0, [(20.0, 75.0), (96.0, 1.0)], None, 100.0, 0.6),
        # a batch that still runs
        (0.0, [], 97.0, 100.0, 0.3),
        (0.0, [], 50.0, 100.0, 1.0),
        (0.0, [(91.0, 1.0)], 98.0, 100.0, 0.3),
        (0.0, [(80.0, 15.0)], 95.0, 100.0, 1.0),
        # a server younger than that
        (98.0, [(98.0, 1.0)], None, 100.0, 0.5),
        (98.0, [(98.0, 1.0)], 99.0, 100.0, 1.0),
        (100.0, [], None, 100.0, 0.0),
        (100.0, [], 100.0, 100.0, 0.0),
    ],
)
def test_utilisation(
    born: float,
    batches: list[tuple[float, float]],
    running_since: float | None,
    now: float,
    share: float,
) -> None:
    """The share of the last ten seconds in which a batch ran includes the running batch."""
    made = Recorder(born)
    for started, seconds in batches:
        made.batch(ran(started, seconds))

    assert made.utilisation(now, running_since) == pytest.approx(share)


@settings(max_examples=100, deadline=None)
@given(
    born=st.integers(0, 25),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=12),
    last=st.integers(0, 12),
    running=st.booleans(),
)
def test_utilisation_is_the_overlap(
    born: int, steps: list[tuple[int, int]], last: int, running: bool
) -> None:
    """For consecutive batches it is the share of seconds in which one ran."""
    made, now, busy = Recorder(float(born)), born, set[int]()
    for idle, seconds in steps:
        now += idle
        made.batch(ran(float(now), float(seconds)))
        busy |= set(range(now, now + seconds))
        now += seconds
    since, now = now, now + last
    busy |= set(range(since, now)) if running else set()
    window = range(max(born, now - 10), now)
    expected = len(busy & set(window)) / len(window) if window else 0.0

    actual = made.utilisation(float(now), float(since) if running else None)

    assert actual == pytest.approx(expected)


def test_more_batches_than_are_kept_keep_the_worker_busy() -> None:
    """If the kept batches cover only part of the window, the share covers that part."""
    made = Recorder(0.0, batches=deque(maxlen=50))
    for n in range(1000):
        made.batch(ran(90 + n / 100, 0.01))

    assert made.utilisation(100.0, None) == pytest.approx(1.0)


# -- counts -------------------------------------------------------------------------------


def test_batches_are_counted() -> None:
    """Sizes, reasons and padding cover all batches; padding is by tokens."""
    made = Recorder(0.0)
    made.batch(ran(1.0, 1.0, 10, 10, 4, reason="full"))
    made.batch(ran(2.0, 1.0, 6, reason="idle"))
    made.batch(ran(3.0, 1.0, 8, 4, 4, reason="full"))
    stats = made.stats(10.0, running_since=None, **ABOUT)

    assert stats.batch_sizes == {1: 1, 3: 2}
    assert list(stats.batch_sizes) == [1, 3]
    assert stats.reasons == {"full": 2, "idle": 1}
    assert stats.mean_batch_size == pytest.approx(7 / 3)
    assert stats.padding == pytest.approx(1 - 46 / 60)


def test_before_any_batch_there_is_no_padding() -> None:
    """Unknown figures are not-a-number, not 0."""
    stats = Recorder(0.0).stats(5.0, running_since=None, **ABOUT)

    assert math.isnan(stats.mean_batch_size)
    assert math.isnan(stats.padding)
    assert math.isnan(stats.latency.p50)
    assert (stats.throughput, stats.utilisation, stats.uptime) == (0.0, 0.0, 5.0)
    assert stats.outcomes == dict.fromkeys(OUTCOMES, 0)


def test_every_outcome_is_counted_and_answers_are_timed() -> None:
    """All records are counted; distributions cover only answers."""
    made = Recorder(0.0)
    for outcome, times in {"ok": 3, "failed": 2, "rejected": 1}.items():
        for n in range(times):
            at = 10.0 + n
            made.request(
                RequestRecord(n, at, at + 1, at + 3 + n, outcome)  # type: ignore[arg-type]
                if outcome == "ok"
                else ended(500.0, outcome, arrived=0.0)  # type: ignore[arg-type]
            )
    stats = made.stats(20.0, running_since=None, **ABOUT)

    assert stats.outcomes == {**dict.fromkeys(OUTCOMES, 0), "ok": 3, "failed": 2, "rejected": 1}
    assert list(stats.outcomes) == list(OUTCOMES)
    assert (stats.latency.p50, stats.latency.mean) == (4.0, 4.0)
    assert (stats.queue_time.p50, stats.queue_time.p99) == (1.0, 1.0)
    assert (stats.inference_time.p50, stats.inference_time.mean) == (3.0, 3.0)


def test_the_queue_has_a_depth_and_a_peak() -> None:
    """The peak remains after the queue has emptied."""
    made = Recorder(0.0)
    made.enqueued(3, 0.0)
    made.enqueued(2, 0.0)
    made.depth -= 4
    made.enqueued(1, 0.0)
    stats = made.stats(1.0, running_since=None, **ABOUT)

    assert (stats.queue_depth, stats.queue_peak) == (2, 5)


def test_only_the_newest_records_are_kept() -> None:
    """Records are limited, and counts are not."""
    made = Recorder(0.0)
    for n in range(KEEP_REQUESTS + 5):
        made.request(ended(float(n)))
    for n in range(KEEP_BATCHES + 5):
        made.batch(ran(float(n), 0.5))

    assert (len(made.requests), made.requests[0].finished) == (KEEP_REQUESTS, 5.0)
    assert (len(made.batches), made.batches[0].started) == (KEEP_BATCHES, 5.0)
    assert made.outcomes["ok"] == KEEP_REQUESTS + 5
    assert made.batch_sizes[1] == made.reasons["full"] == KEEP_BATCHES + 5


def test_a_copy_stays_as_it_was() -> None:
    """Later records do not appear in a copy."""
    made = recorder(0.0, 1.0)
    made.batch(ran(0.0, 1.0, 2, 4))
    made.enqueued(1, 0.0)
    copy = made.copy()
    before = copy.stats(5.0, running_since=None, **ABOUT)
    made.request(ended(2.0))
    made.batch(ran(2.0, 1.0, 9, reason="idle"))
    made.enqueued(3, 0.0)

    assert copy.stats(5.0, running_since=None, **ABOUT) == before
    assert (before.outcomes["ok"], before.throughput) == (1, 0.2)
    assert copy.requests.maxlen == made.requests.maxlen


# -- forms --------------------------------------------------------------------------------


def some_stats(**changes: Any) -> Stats:
    """Return statistics in which no two figures are equal."""
    made = Stats(
        state="ready",
        model="fill-mask, Bert",
        policy="Window(max_batch_size=8, max_wait=0.005)",
        uptime=185.0,
        outcomes={"ok": 41, "rejected": 0, "failed": 3},
        throughput=12.34,
        queue_depth=5,
        queue_peak=77,
        batch_sizes={16: 2, 1: 4},
        reasons={"full": 9, "idle": 6},
        mean_batch_size=3.21,
        padding=0.156,
        utilisation=0.874,
        latency=Distribution(0.011, 0.012, 0.0125, 0.013, 0.0111),
        queue_time=Distribution(0.0021, 0.0022, 0.0025, 0.0023, 0.0024),
        inference_time=Distribution(1.5, 1.6, 1.65, 1.7, 1.8),
        queue_limit=1000,
        active=1.0,
        active_throughput=41.0,
        active_utilisation=0.93,
    )
    return replace(made, **changes)


FIGURES = [
    ("state", "now", "ready"),
    ("model", "now", "fill-mask, Bert"),
    ("policy", "now", "Window(max_batch_size=8, max_wait=0.005)"),
    ("uptime", "now", "3 min 5 s"),
    ("requests", "since the start", "ok: 41, failed: 3"),
    ("throughput", "last 10 s", "12.3/s"),
    ("throughput while active", "since the start", "41/s in 1.00 s with requests"),
    ("latency", "since the start", "p50 11.0 ms, p90 12.0 ms, p99 13.0 ms"),
    ("queue_time", "since the start", "p50 2.1 ms, p90 2.2 ms, p99 2.3 ms"),
    ("inference_time", "since the start", "p50 1.50 s, p90 1.60 s, p99 1.70 s"),
    ("queue", "now", "5 waiting · limit 1000"),
    ("queue peak", "since the start", "77"),
    ("batch sizes", "since the start", "1: 4, 16: 2"),
    ("mean batch size", "since the start", "3.21"),
    ("released because", "since the start", "full: 9, idle: 6"),
    ("padding", "since the start", "16%"),
    ("worker busy", "last 10 s", "87%"),
    ("worker busy while active", "since the start", "93%"),
]


def test_the_text_form_has_the_figures() -> None:
    """The text has a line for each figure, with its name, span and unit."""
    lines = [re.split(" {2,}", line) for line in repr(some_stats()).splitlines()]

    assert [tuple(line) for line in lines] == FIGURES
    assert str(some_stats()) == repr(some_stats())


def test_the_html_form_has_the_figures() -> None:
    """The HTML is a table of the same figures."""
    html = some_stats()._repr_html_()

    for cells in FIGURES:
        assert "<tr>" + "".join(f"<td>{text}</td>" for text in cells) + "</tr>" in html


def test_times_of_more_requests_than_are_kept_are_over_the_newest() -> None:
    """The span of a distribution is the whole time only while every request is kept."""
    outcomes = {"ok": KEEP_REQUESTS, "failed": 1}

    assert "newest 10,000 requests  p50 11.0 ms" in repr(some_stats(outcomes=outcomes))
    outcomes["failed"] = 0
    assert "newest" not in repr(some_stats(outcomes=outcomes))


def value_of(stats: Stats, name: str) -> str:
    """Return the value of a row of the table."""
    rows = [re.split(" {2,}", line) for line in repr(stats).splitlines()]
    return next(row[-1] for row in rows if row[0] == name)


def test_an_error_is_shown_only_if_there_is_one() -> None:
    """An error follows the state, and is escaped in HTML."""
    stats = some_stats(error="raised <b>KeyError</b> & more", model="<script>")

    assert repr(stats).splitlines()[1].split("  ")[0] == "error"
    assert value_of(stats, "error") == "raised <b>KeyError</b> & more"
    assert "<td>raised &lt;b&gt;KeyError&lt;/b&gt; &amp; more</td>" in stats._repr_html_()
    assert "<script>" not in stats._repr_html_()
    assert "error" not in repr(some_stats())


def test_a_failing_model_is_shown_with_its_error() -> None:
    """The row has the type, message, count, time, request and next step."""
    error = LastError("m", "KeyError", "'x'", 2.5, 4, "17", "An answer ends this.")
    stats = some_stats(state="failing", failing=error, last_error=replace(error, next=""))

    assert value_of(stats, "failing") == (
        "KeyError: 'x' (4 requests in a row failed, last 2.50 s ago, request 17)"
    )
    assert value_of(stats, "next") == "An answer ends this."
    assert "last error" not in repr(stats)
    assert stats.to_dict()["failing"] == {
        "model": "m",
        "type": "KeyError",
        "message": "'x'",
        "ago": 2.5,
        "times": 4,
        "request": "17",
        "next": "An answer ends this.",
    }


def test_the_last_error_is_shown_after_it_is_over() -> None:
    """A model that answers again still shows its last error, and the count."""
    error = LastError("m", "KeyError", "'x'", 2.5, 1, "17")

    assert value_of(some_stats(last_error=error), "last error") == (
        "KeyError: 'x' (2.50 s ago, request 17)"
    )
    twice = some_stats(last_error=replace(error, times=2, request="", message=""))
    long = some_stats(last_error=replace(error, message="x" * 500))
    assert value_of(long, "last error").startswith("KeyError: " + "x" * MOST_MESSAGE + "… (2.50 s")
    assert value_of(twice, "last error") == "KeyError (2 times, last 2.50 s ago)"


def test_warnings_have_rows() -> None:
    """One warning is a row, and several are numbered."""
    assert value_of(some_stats(warnings=("slow",)), "warning") == "slow"
    two = some_stats(warnings=("slow", "full"))
    assert (value_of(two, "warning 1"), value_of(two, "warning 2")) == ("slow", "full")


def test_messages_are_redacted_for_clients() -> None:
    """Every error message can be replaced, for each of several models too."""
    error = LastError("m", "KeyError", "secret", 2.5, 4, "17", "next")
    one = some_stats(error="secret", failing=error, last_error=error)
    told = some_stats(models={"m": one}, failing=error).redact(lambda text: text and "hidden")

    assert "secret" not in json.dumps(told.to_dict())
    assert told.models["m"].error == "hidden"
    assert told.error == ""
    assert told.models["m"].failing == replace(error, message="hidden")


# -- active time --------------------------------------------------------------------------


def test_throughput_while_active_leaves_out_the_time_without_requests() -> None:
    """After a load test the active figures still describe its speed."""
    made = Recorder(0.0)
    made.enqueued(2, 100.0)
    made.request(ended(101.0))
    made.closed(1, 101.0)
    made.request(ended(104.0))
    made.closed(1, 104.0)
    made.enqueued(1, 200.0)
    made.request(ended(201.0, "failed"))
    made.closed(1, 201.0)
    stats = made.stats(1000.0, running_since=None, **ABOUT)

    assert stats.throughput == 0.0
    assert (stats.active, stats.active_throughput) == (5.0, 2 / 5)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.integers(1, 20)).map(lambda one: (one[0], sum(one))),
        max_size=12,
    ),
    st.integers(0, 140),
)
def test_active_time_is_the_union_of_all_requests(spans: list[tuple[int, int]], now: int) -> None:
    """Active time is the time with at least one request, for any requests."""
    made, active = Recorder(0.0), set[int]()
    events = [(first, 1) for first, _ in spans] + [(last, -1) for _, last in spans]
    for at, change in sorted(event for event in events if event[0] <= now):
        if change > 0:
            made.enqueued(1, float(at))
        else:
            made.closed(1, float(at))
    for first, last in spans:
        active |= set(range(first, min(last, now)))

    assert made.active(float(now)) == len(active)


def test_workers_are_busy_while_active() -> None:
    """The share is the mean of all workers, and at most 1."""
    made = Recorder(0.0)
    made.enqueued(1, 10.0)
    made.closed(1, 14.0)
    workers = tuple(
        WorkerStats(n, "thread", "", None, 1, 1, 0.0, {}, busy=busy)
        for n, busy in enumerate((4.0, 2.0))
    )
    stats = made.stats(20.0, running_since=None, workers=workers, **ABOUT)
    longer = made.stats(20.0, running_since=None, workers=(replace(workers[0], busy=9.0),), **ABOUT)

    assert (stats.active_utilisation, longer.active_utilisation) == (0.75, 1.0)


def test_an_unknown_figure_is_a_dash() -> None:
    """A server without requests shows no ``nan``."""
    stats = Recorder(0.0).stats(0.5, running_since=None, **ABOUT)

    assert "nan" not in repr(stats)
    assert "nan" not in stats._repr_html_()
    assert "p50 –, p90 –, p99 –" in repr(stats)


def test_the_dictionary_is_json() -> None:
    """Every field is in the JSON, with null for unknown figures."""
    empty = Recorder(0.0).stats(5.0, running_since=None, **ABOUT).to_dict()
    full = some_stats(error="it broke").to_dict()

    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
    assert json.loads(json.dumps(full, allow_nan=False)) == full
    assert full.keys() == empty.keys() == Stats.__dataclass_fields__.keys()
    assert (empty["padding"], empty["latency"]["p50"], empty["error"]) == (None, None, "")
    assert full["latency"] == {
        "p50": 0.011,
        "p90": 0.012,
        "p95": 0.0125,
        "p99": 0.013,
        "mean": 0.0111,
    }
    assert full["batch_sizes"] == {"16": 2, "1": 4}
    assert (full["padding"], full["queue_peak"], full["error"]) == (0.156, 77, "it broke")


def test_statistics_are_frozen() -> None:
    """A snapshot is frozen."""
    with pytest.raises(FrozenInstanceError):
        some_stats().throughput = 1.0  # type: ignore[misc]


# -- the queue ----------------------------------------------------------------------------


def test_the_queue_is_a_sequence_of_jobs() -> None:
    """A queue can be counted, indexed and iterated, oldest first."""
    jobs = (Job(4, 1.0), Job(7, 2.0))
    queue = Queue(jobs, 3.0)

    assert (len(queue), queue[0], queue[-1]) == (2, jobs[0], jobs[1])
    assert list(queue) == list(jobs)
    assert not Queue((), 3.0)


def test_the_queue_reads_as_a_table() -> None:
    """Each job has a line with its waiting time, parameters and remaining time."""
    jobs = (Job(4, 1.0, 12, 33.0), Job(7, 2.75, 5, group='{"top_k": 2}'))
    queue = Queue(jobs, 3.0, preparing=2)

    assert repr(queue).splitlines() == [
        "2 waiting, 2 in preprocessing",
        "id  waiting for  length  parameters    time left",
        "4   2.00 s       12      default       30.00 s",
        '7   250.0 ms     5       {"top_k": 2}  –',
    ]
    assert "<td>{&quot;top_k&quot;: 2}</td>" in queue._repr_html_()


def test_an_empty_queue_reads_well_too() -> None:
    """An empty queue says so."""
    assert repr(Queue((), 3.0)).splitlines()[0] == "0 waiting"
    assert "0 waiting" in Queue((), 3.0)._repr_html_()


def test_a_part_of_the_queue_reads_as_a_table() -> None:
    """A slice is a queue too."""
    queue = Queue((Job(4, 1.0), Job(7, 2.0), Job(9, 2.5)), 3.0, preparing=2)

    assert isinstance(queue[1:], Queue)
    assert [job.id for job in queue[1:]] == [7, 9]
    assert repr(queue[:1]).splitlines()[0] == "1 waiting"


def test_the_queue_is_a_data_frame() -> None:
    """A frame has a row for each job; an empty queue has the same columns."""
    pytest.importorskip("pandas")
    frame = Queue((Job(4, 1.0, 12, 33.0), Job(7, 2.75, 5)), 3.0).to_frame()

    assert list(frame["waits"]) == [2.0, 0.25]
    assert list(frame["time_left"]) == [30.0, math.inf]
    assert list(frame["length"]) == [12, 5]
    assert list(Queue((), 3.0).to_frame().columns) == list(frame.columns)
