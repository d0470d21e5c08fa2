"""Open requests: deadlines, cancelled requests and records."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

from notebook_serve import DeadlineExceeded, Job
from notebook_serve.engine.deadline_timer import DeadlineTimer
from notebook_serve.engine.requests import OpenRequests
from notebook_serve.engine.status import Status
from notebook_serve.models.base import Prepared
from notebook_serve.queueing.jobs import Batch

from ..helpers.blocking_model import Gate, eventually
from ..helpers.engines import MakeEngine, ask, outcome_of


def test_a_request_whose_time_is_up_is_answered_and_never_run(engine: MakeEngine) -> None:
    """While the model is busy, a waiting request expires on time and is not computed later."""
    gate = Gate()
    one = engine(gate)
    running = ask(one, "first")
    assert gate.begun.wait(30)
    late = ask(one, "late", timeout=0.01)
    with pytest.raises(DeadlineExceeded, match="while it waited"):
        late.result(30)
    gate.opened.set()
    running.result(30)
    assert ask(one, "after").result(30).value == "after"

    assert gate.calls == [["first"], ["after"]]
    record = next(item for item in one.requests.records() if item.outcome == "expired")
    assert record.started is None
    assert record.latency >= 0.01


def test_a_request_whose_time_is_up_while_it_runs_is_answered_on_time(engine: MakeEngine) -> None:
    """The client has its 504 while the model still runs; the result is dropped."""
    gate = Gate()
    one = engine(gate)
    future = ask(one, "slow", timeout=0.01)
    with pytest.raises(DeadlineExceeded, match="while it ran"):
        future.result(30)
    assert not gate.opened.is_set()
    gate.opened.set()
    assert ask(one, "next").result(30).value == "next"
    assert one.stats().outcomes["expired"] == 1


def test_a_longer_timeout_than_the_servers_is_cut(engine: MakeEngine) -> None:
    """A client can shorten the timeout, never lengthen it."""
    gate = Gate()
    one = engine(gate, timeout=0.01)
    with pytest.raises(DeadlineExceeded, match="0.01 s"):
        ask(one, 1, timeout=1000).result(30)
    gate.opened.set()


def test_a_cancelled_request_leaves_the_queue(engine: MakeEngine) -> None:
    """What its client gave up is not computed, and its place is free at once."""
    gate = Gate()
    one = engine(gate, max_queue_size=1)
    first = ask(one, "first")
    assert gate.begun.wait(30)
    gone = ask(one, "gone")
    assert gone.cancel()
    stays = ask(one, "stays")  # would be refused if the place were still taken
    gate.opened.set()

    assert first.result(30).value == "first"
    assert stays.result(30).value == "stays"
    with pytest.raises(CancelledError):
        gone.result(30)
    assert gate.calls == [["first"], ["stays"]]
    assert one.stats().outcomes["cancelled"] == 1


def test_active_time_is_measured(engine: MakeEngine) -> None:
    """It begins with a request and ends with the last answer, whatever came of the requests."""
    gate = Gate()
    one = engine(gate)
    assert one.stats().active == 0
    running = ask(one, 0)
    assert gate.begun.wait(30)
    assert one.stats().active > 0
    assert one.stats().workers[0].busy > 0
    gate.opened.set()
    running.result(30)
    outcome_of(one, "invalid")
    eventually(lambda: one.stats().active == one.stats().active, "it stands still")
    stats = one.stats()

    assert stats.active_throughput == pytest.approx(stats.outcomes["ok"] / stats.active)
    assert 0 < stats.active_utilisation <= 1
    assert stats.queue_limit == 1000


def test_records_tell_how_each_request_fared(engine: MakeEngine) -> None:
    """Times are in order, batches are named, and derived times add up."""
    gate = Gate()
    one = engine(gate)
    futures = [ask(one, value, client="me") for value in range(4)]
    gate.opened.set()
    records = [future.result(30).record for future in futures]
    assert sorted(records, key=lambda r: r.id) == one.requests.records()
    batches = {batch.id: batch for batch in one.requests.batches()}
    for record in records:
        assert record.started is not None
        assert record.arrived <= record.started <= record.finished
        assert record.latency == pytest.approx(record.queue_time + record.inference_time)
        assert record.outcome == "ok"
        assert record.client == "me"
        assert record.batch_id in batches
        assert batches[record.batch_id].size == record.batch_size


def test_a_batch_keeps_the_inputs_of_requests_that_time_out_as_it_begins() -> None:
    """A deadline in the moment when a batch begins shifts no answer to another request."""
    status = Status()
    requests = OpenRequests(status)
    requests.deadlines = DeadlineTimer(lambda key: None, "test")
    with status.lock:
        entries = requests.make(["a", "b", "c"], {}, now=0.0, patience=60.0, client="")
        requests.accept(entries, 0.0)
    jobs = []
    for entry in entries:
        jobs.append(Job(entry.id, 0.0))
        assert requests.prepare(entry, Prepared(entry.inputs), jobs[-1])

    begun = requests.begin(Batch(1, tuple(jobs), "full", 0), 1.0)
    assert requests.expire(entries[1].id)
    assert entries[1].prepared is None
    assert [(entry.id, item.inputs) for entry, item in begun] == [(1, "a"), (2, "b"), (3, "c")]
    assert len(requests) == 2
