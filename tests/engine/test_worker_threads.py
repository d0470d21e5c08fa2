"""Worker threads: batches by the policy, live swaps, pauses and faults of policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from notebook_serve import (
    CostAware,
    CostModel,
    Decision,
    Greedy,
    InvalidInput,
    Job,
    NoBatching,
    Overloaded,
    Policy,
)
from notebook_serve.models.base import Prepared
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.queueing.scheduler import PolicyFault

from ..helpers.blocking_model import Gate, eventually
from ..helpers.engines import MakeEngine, Raising, Stalling, ask, double


def test_what_waits_while_the_model_runs_shares_the_next_batch(engine: MakeEngine) -> None:
    """A batch is formed when the worker is free, from all that has come by then."""
    gate = Gate()
    one = engine(gate, policy=Greedy(8))
    first = ask(one, 0)
    assert gate.begun.wait(30)
    rest = [ask(one, value) for value in range(1, 11)]
    gate.opened.set()

    assert [future.result(30).value for future in [first, *rest]] == list(range(11))
    assert [len(call) for call in gate.calls] == [1, 8, 2]
    assert [(batch.size, batch.reason) for batch in one.requests.batches()] == [
        (1, "idle"),
        (8, "full"),
        (2, "idle"),
    ]
    assert [batch.waiting for batch in one.requests.batches()] == [0, 2, 0]


def test_requests_with_different_parameters_never_share_a_batch(engine: MakeEngine) -> None:
    """Each batch has one set of parameters."""
    calls = []

    def model(inputs: list[int], *, factor: int = 1) -> list[int]:
        calls.append((factor, inputs))
        return [value * factor for value in inputs]

    one = engine(model)
    one.pause()
    futures = [one.submit([value], {"factor": value % 3})[0] for value in range(9)]
    one.pause(False)
    assert [future.result(30).value for future in futures] == [v * (v % 3) for v in range(9)]
    assert sorted(calls) == [(0, [0, 3, 6]), (1, [1, 4, 7]), (2, [2, 5, 8])]

    with pytest.raises(InvalidInput, match="does not take the parameter 'power'"):
        one.submit([1], {"power": 2})[0].result(30)


class Observing(Greedy):
    """A policy whose observe fails."""

    def observe(self, batch: Any) -> None:
        """Fail."""
        raise RuntimeError("seen enough")


@pytest.mark.parametrize("policy", [Raising(), Stalling(), Observing()])
def test_a_broken_policy_is_shown_and_loses_nothing(engine: MakeEngine, policy: Policy) -> None:
    """The queue goes on under Greedy, stats say why, and setting another policy ends that."""
    one = engine(double, policy=policy)
    assert [ask(one, value).result(30).value for value in range(20)] == list(range(0, 40, 2))
    eventually(lambda: one.policy == Greedy(), "the fall back is shown")
    assert type(policy).__name__ in one.stats().error
    assert "goes on under Greedy" in one.stats().error

    one.policy = NoBatching()
    assert ask(one, 1).result(30).value == 2
    assert one.policy == NoBatching()
    assert one.stats().error == ""


def test_a_policy_swapped_live_decides_the_next_batch(engine: MakeEngine) -> None:
    """What waits when the policy changes is batched by the new one."""
    gate = Gate()
    one = engine(gate, policy=NoBatching())
    futures = [ask(one, value) for value in range(7)]
    assert gate.begun.wait(30)
    one.policy = Greedy(3)
    gate.opened.set()
    for future in futures:
        future.result(30)
    assert [batch.size for batch in one.requests.batches()] == [1, 3, 3]


def test_what_the_policy_gives_up_is_refused(engine: MakeEngine) -> None:
    """The client hears at once that too much waits, and when to come back; the rest is served."""

    class NewestOnly:
        def decide(self, waiting: Sequence[Job], now: float) -> Decision:
            *older, newest = waiting
            return Decision((newest,), reason="newest", drop=tuple(older))

    gate = Gate()
    made = engine(gate, policy=NewestOnly())
    first = made.submit(["first"], {})[0]
    assert gate.begun.wait(60)
    given_up = made.submit(["a", "b"], {})
    last = made.submit(["last"], {})[0]
    gate.opened.set()

    assert (first.result(60).value, last.result(60).value) == ("first", "last")
    for future in given_up:
        with pytest.raises(Overloaded, match="the policy dropped this request") as caught:
            future.result(60)
        assert caught.value.retry_after >= 1
        assert caught.value.record is not None
        assert caught.value.record.outcome == "rejected"
    assert gate.calls == [["first"], ["last"]]
    assert made.stats().outcomes["rejected"] == 2
    assert made.stats().queue_depth == 0


def test_pause_lets_the_queue_fill(engine: MakeEngine) -> None:
    """While paused nothing is released, and the queue can be looked at; resuming runs it."""
    one = engine(double)
    one.pause()
    futures = one.submit([1, 2, 3], {})
    assert [job.id for job in one.requests.queue()] == [1, 2, 3]
    assert "3 waiting" in str(one.requests.queue())
    assert one.stats().queue_depth == 3
    assert one.state == "paused"
    assert not any(future.done() for future in futures)
    one.pause(False)
    assert [future.result(30).value for future in futures] == [2, 4, 6]
    assert len(one.requests.queue()) == 0


def test_a_new_policy_knows_the_cost_of_the_queue(engine: MakeEngine) -> None:
    """A policy that is set live decides at once by the cost model that the queue has learned."""
    one = engine(double)
    cost = CostModel(fixed=0.01, per_token=0.001)
    one._scheduler.online_cost.trusted = cost
    policy = CostAware(8)
    assert policy.cost is None

    one.policy = policy
    assert ask(one, 1).result(30).value == 2
    assert policy.cost == cost


def test_a_cost_model_outlives_a_restart(engine: MakeEngine) -> None:
    """A stop and a start keep the cost model of a policy that uses one."""
    one = engine(double, policy=CostAware(8))
    cost = CostModel(fixed=0.01, per_token=0.001)
    one._scheduler.online_cost.trusted = cost
    assert ask(one, 1).result(30).value == 2
    one.stop()
    one.start()
    assert one._scheduler.online_cost.trusted == cost
    assert one.requests.estimate.online_cost is one._scheduler.online_cost


def test_a_start_tries_a_broken_policy_again(engine: MakeEngine) -> None:
    """After a restart the policy that was set decides, and no old fault is shown."""
    one = engine(double, policy=Stalling())
    assert ask(one, 1).result(30).value == 2
    assert "Stalling" in one.stats().error
    one.stop()
    one.start()
    assert one.stats().error == ""
    assert ask(one, 1).result(30).value == 2
    assert "Stalling" in one.stats().error


def test_the_cost_model_of_the_queue_outlives_a_restart(engine: MakeEngine) -> None:
    """It is the queue's, so a policy that does not use it loses none of it either."""
    one = engine(double, policy=Greedy(8))
    one._scheduler.online_cost.trusted = CostModel(fixed=0.01)
    one.stop()
    one.start()
    assert one._scheduler.online_cost.trusted == CostModel(fixed=0.01)


def test_a_fault_of_a_replaced_policy_is_no_change(
    engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """A policy that fails just after another was set is logged, and changes nothing."""
    one = engine(double, policy=NoBatching())
    one.policy_failed(PolicyFault(Raising(), RuntimeError("late")))
    assert one.policy == NoBatching()
    assert [change.reason for change in one.policy_changes()] == ["start"]
    assert "the previous policy failed: late" in caplog.text


def test_an_interrupt_while_requests_are_accepted_leaves_no_job(engine: MakeEngine) -> None:
    """The inputs that were accepted before an interrupt leave the queue again."""

    class Interrupting(FunctionModel):
        """A model whose second input is interrupted while it is prepared."""

        def prepare(self, inputs: Any, parameters: Any) -> Prepared:
            """Raise as Ctrl+C does."""
            if inputs == 2:
                raise KeyboardInterrupt
            return super().prepare(inputs, parameters)

    one = engine(Interrupting(double))
    one.pause()
    with pytest.raises(KeyboardInterrupt):
        one.submit([1, 2, 3], {})
    one.pause(False)
    eventually(lambda: not one._scheduler.waiting, "the queue is empty")
    assert len(one.requests) == 0
    assert one.stats().queue_depth == 0
