from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from notebook_serve.errors import PolicyError
from notebook_serve.queueing.cost_model import CostModel
from notebook_serve.queueing.jobs import Batch, Decision, Job
from notebook_serve.queueing.learned_policies import CostAware
from notebook_serve.queueing.policies import (
    CoDel,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Window,
)
from notebook_serve.queueing.scheduler import FALLBACK, PolicyFault, Scheduler, check_decision
from notebook_serve.records import BatchRecord

Decide = Callable[[Sequence[Job], float], Any]


class Custom:
    """A policy that decides by a function, and notes what it is told."""

    def __init__(self, decide: Decide, name: str = "Custom()") -> None:
        self._decide = decide
        self._name = name
        self.observed: list[BatchRecord] = []

    def decide(self, waiting: Sequence[Job], now: float) -> Any:
        """Whatever the function says."""
        return self._decide(waiting, now)

    def observe(self, batch: BatchRecord) -> None:
        """Note it."""
        self.observed.append(batch)

    def __repr__(self) -> str:
        return self._name


class BadObserver(Greedy):
    """Decides well, but chokes on what it is told."""

    def observe(self, batch: BatchRecord) -> None:
        """Raise."""
        raise ZeroDivisionError("cannot learn")


def raises(waiting: Sequence[Job], now: float) -> Decision:
    """A bug in a policy."""
    raise KeyError("no such thing")


#: decisions that break the contract whatever waits
BROKEN: dict[str, Decide] = {
    "raises": raises,
    "nothing at all": lambda waiting, now: None,
    "a list of jobs": lambda waiting, now: list(waiting),
    "no iterable": lambda waiting, now: Decision(take=waiting[0]),  # type: ignore[arg-type]
    "no job": lambda waiting, now: Decision(take=(waiting[0].id,)),  # type: ignore[arg-type]
    "a job twice": lambda waiting, now: Decision((waiting[0], waiting[0])),
    "a foreign job": lambda waiting, now: Decision((waiting[0], Job(-1, now))),
    "a copy of a job": lambda waiting, now: Decision((replace(waiting[0]),)),
    "wake_at now": lambda waiting, now: Decision(wake_at=now),
    "wake_at past": lambda waiting, now: Decision(wake_at=now - 1),
    "wake_at inf": lambda waiting, now: Decision(wake_at=math.inf),
    "wake_at -inf": lambda waiting, now: Decision(wake_at=-math.inf),
    "wake_at nan": lambda waiting, now: Decision(wake_at=math.nan),
    "wake_at None": lambda waiting, now: Decision(wake_at=None),  # type: ignore[arg-type]
    "drop nothing known": lambda waiting, now: Decision(drop=(Job(-1, now),)),
    "drop what it takes": lambda waiting, now: Decision((waiting[0],), drop=(waiting[0],)),
    "drop no jobs": lambda waiting, now: Decision(drop=3),  # type: ignore[arg-type]
    "wake_at text": lambda waiting, now: Decision(wake_at="soon"),  # type: ignore[arg-type]
}


def all_groups(waiting: Sequence[Job], now: float) -> Decision:
    """Right only while a single group waits."""
    return Decision(tuple(waiting), reason="all")


def drop_late(waiting: Sequence[Job], now: float) -> Decision:
    """Drop what has waited for a second, and take the oldest of the rest."""
    late = tuple(job for job in waiting if now - job.arrived >= 1.0)
    kept = [job for job in waiting if job not in late]
    return Decision(tuple(kept[:1]), reason="dropped some", drop=late)


def offered(policy: Policy, *jobs: Job) -> Scheduler:
    """A scheduler that was offered `jobs`."""
    scheduler = Scheduler(policy)
    for job in jobs:
        scheduler.offer(job)
    return scheduler


def taken(batch: Batch | None) -> list[int]:
    """The ids of a batch's jobs; a batch there must be."""
    assert batch is not None
    return [job.id for job in batch.jobs]


RECORD = BatchRecord(1, "full", (1,), 0.0, 1.0)


# -- what a poll gives --------------------------------------------------------------------


def test_what_a_policy_drops_leaves_once() -> None:
    """It is told once, and the policy is asked again about the rest."""
    jobs = [Job(1, 0.0), Job(2, 0.5), Job(3, 2.0), Job(4, 2.0)]
    scheduler = offered(Custom(drop_late), *jobs)

    assert taken(scheduler.poll(2.0)) == [3]
    assert scheduler.dropped() == jobs[:2]
    assert scheduler.dropped() == []
    assert list(scheduler.waiting) == jobs[3:]


def test_a_policy_may_drop_everything() -> None:
    """Then nothing waits, and there is nothing to be woken for."""
    scheduler = offered(Custom(drop_late), Job(1, 0.0), Job(2, 0.0))

    assert scheduler.poll(9.0) is None
    assert scheduler.wake_at == math.inf
    assert len(scheduler.dropped()) == 2
    assert scheduler.fault is None


def test_nothing_is_dropped_while_draining() -> None:
    """What was accepted before a stop is answered by it."""
    scheduler = offered(Custom(drop_late), Job(1, 0.0), Job(2, 0.0), Job(3, 8.5))
    scheduler.drain()

    assert taken(scheduler.poll(9.0)) == [1, 2, 3]
    assert scheduler.dropped() == []


def test_nothing_comes_of_nothing() -> None:
    """With nothing waiting there is no batch, no time to ask again, and no policy is asked."""
    scheduler = Scheduler(Custom(raises))

    assert scheduler.poll(1.0) is None
    assert scheduler.wake_at == math.inf
    assert scheduler.fault is None


def test_a_batch_says_what_it_is() -> None:
    """Batches count from 1 and carry their jobs, the reason, and how many were left."""
    jobs = [Job(i, 0.0) for i in range(1, 6)]
    scheduler = offered(Greedy(2), *jobs)

    assert scheduler.poll(1.0) == Batch(1, (jobs[0], jobs[1]), "full", 3)
    assert scheduler.poll(1.0) == Batch(2, (jobs[2], jobs[3]), "full", 1)
    assert scheduler.poll(1.0) == Batch(3, (jobs[4],), "idle", 0)
    assert scheduler.poll(1.0) is None


def test_a_wait_names_the_time_to_ask_again() -> None:
    """``wake_at`` is the policy's absolute time until the next poll, which clears it."""
    scheduler = offered(Window(4, 0.5), Job(1, 10.0))

    assert scheduler.poll(10.0) is None
    assert scheduler.wake_at == 10.5
    assert taken(scheduler.poll(10.5)) == [1]
    assert scheduler.wake_at == math.inf


def test_a_decision_may_come_in_other_clothes() -> None:
    """Jobs in a list or a generator and a reason that is no string are made what they should be."""
    jobs = [Job(1, 0.0), Job(2, 0.0), Job(3, 0.0)]
    as_list = Custom(lambda waiting, now: Decision(waiting[:2], reason=7))  # type: ignore[arg-type]
    scheduler = offered(as_list, *jobs)
    first = scheduler.poll(0.0)
    scheduler.policy = Custom(lambda waiting, now: Decision(job for job in waiting))  # type: ignore[arg-type]

    assert first == Batch(1, (jobs[0], jobs[1]), "7", 1)
    assert taken(scheduler.poll(0.0)) == [3]
    assert scheduler.fault is None


def test_another_policy_acts_on_the_next_poll() -> None:
    """Setting a policy is enough: what waited under one is released by the next."""
    scheduler = offered(Window(4, 100.0), Job(1, 0.0), Job(2, 0.0))
    first = scheduler.poll(0.0)
    scheduler.policy = NoBatching()

    assert first is None
    assert scheduler.policy == NoBatching()
    assert taken(scheduler.poll(0.0)) == [1]


# -- leaving without a batch --------------------------------------------------------------


def test_a_withdrawn_job_is_in_no_batch() -> None:
    """A job taken out is given back once, and runs never."""
    job, other = Job(1, 0.0), Job(2, 0.0)
    scheduler = offered(Greedy(), job, other)

    assert scheduler.withdraw(1) is job
    assert scheduler.withdraw(1) is None
    assert scheduler.withdraw(99) is None
    assert taken(scheduler.poll(0.0)) == [2]


@pytest.mark.parametrize(
    ("now", "expired"),
    [(1.9, []), (2.0, [3]), (2.5, [3]), (3.0, [3, 1, 2]), (math.nextafter(4.0, 0), [3, 1, 2])],
)
def test_a_job_expires_at_its_deadline(now: float, expired: list[int]) -> None:
    """Jobs whose time has come leave, the earliest first; those without a deadline stay."""
    deadlines = (3.0, 3.0, 2.0, 4.0, math.inf)
    scheduler = offered(Greedy(), *(Job(i, 0.0, 1, at) for i, at in enumerate(deadlines, 1)))

    assert [job.id for job in scheduler.expire(now)] == expired
    assert scheduler.expire(now) == []
    assert sorted(taken(scheduler.poll(now))) == sorted({1, 2, 3, 4, 5} - set(expired))


def test_what_has_left_does_not_expire() -> None:
    """A job that ran or was withdrawn before its deadline is not given out again."""
    scheduler = offered(NoBatching(), Job(1, 0.0, 1, 5.0), Job(2, 0.0, 1, 5.0))
    scheduler.poll(0.0)
    scheduler.withdraw(2)

    assert scheduler.expire(6.0) == []


@pytest.mark.parametrize("leave", ["poll", "withdraw"])
def test_deadlines_do_not_pile_up(leave: str) -> None:
    """Of many jobs that left long before their deadline, few are remembered."""
    scheduler = Scheduler(Greedy(1))
    for i in range(20):
        scheduler.offer(Job(-i, 0.0, 1, 1e9 - i))
    for i in range(5000):
        scheduler.offer(Job(i + 1, float(i), 1, 1e6 + i))
        assert len(scheduler._deadlines) <= 2 * len(scheduler.waiting) + 64
        if leave == "withdraw":
            scheduler.withdraw(i + 1)
        else:
            scheduler.poll(float(i))
    left = [job.id for job in scheduler.waiting]

    assert len(scheduler._deadlines) <= 2 * 21 + 64
    assert sorted(job.id for job in scheduler.expire(1e9)) == sorted(left)


# -- a policy that breaks its contract ----------------------------------------------------


@pytest.mark.parametrize("decide", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_policy_is_replaced(decide: Decide) -> None:
    """The job is released by Greedy at once, and the fault names the policy and the error."""
    policy = Custom(decide, "Broken()")
    scheduler = offered(policy, Job(1, 0.0), Job(2, 0.0))

    assert taken(scheduler.poll(5.0)) == [1, 2]
    assert scheduler.wake_at == math.inf
    assert scheduler.policy is FALLBACK
    assert scheduler.fault is not None
    assert scheduler.fault.policy is policy
    assert str(scheduler.fault).startswith("Broken() ")
    assert str(scheduler.fault).endswith("; the queue goes on under Greedy(max_batch_size=16)")


def test_a_batch_of_two_groups_is_refused() -> None:
    """A policy is held to one group per batch, and only then at fault."""
    policy = Custom(all_groups)
    scheduler = offered(policy, Job(1, 0.0, group="a"), Job(2, 0.0, group="a"))
    good = scheduler.poll(0.0)
    scheduler.offer(Job(3, 0.0, group="a"))
    scheduler.offer(Job(4, 0.0, group="b"))

    assert taken(good) == [1, 2]
    assert taken(scheduler.poll(0.0)) == [3]
    assert "different groups" in str(scheduler.fault)


@pytest.mark.parametrize(
    ("decide", "says"),
    [
        ("raises", "raised KeyError: 'no such thing'"),
        ("nothing at all", "returned None where a Decision was expected"),
        ("a job twice", "took or dropped a job twice"),
        ("a foreign job", "a job that does not wait"),
        ("wake_at past", "took nothing from 1 waiting and asked to be woken at 4.0 (now is 5.0)"),
        ("wake_at inf", "asked to be woken at inf"),
        ("wake_at nan", "asked to be woken at nan"),
    ],
)
def test_the_fault_says_what_was_wrong(decide: str, says: str) -> None:
    """The author of a policy reads which promise it broke, with the numbers."""
    scheduler = offered(Custom(BROKEN[decide]), Job(1, 0.0))
    scheduler.poll(5.0)

    assert says in str(scheduler.fault)


def test_setting_a_policy_clears_the_fault() -> None:
    """A repaired policy decides again, and the old fault is gone."""
    scheduler = offered(Custom(raises), Job(1, 0.0), Job(2, 0.0))
    scheduler.poll(0.0)
    broken = scheduler.fault
    scheduler.policy = NoBatching()

    assert broken is not None
    assert scheduler.fault is None
    assert scheduler.policy == NoBatching()


def test_the_fault_stays_until_then() -> None:
    """Batches that run well under the fallback do not hide what happened."""
    scheduler = offered(Custom(raises), Job(1, 0.0))
    scheduler.poll(0.0)
    fault = scheduler.fault
    scheduler.offer(Job(2, 1.0))
    scheduler.poll(1.0)
    scheduler.finish(RECORD)

    assert isinstance(fault, PolicyFault)
    assert scheduler.fault is fault


def test_an_interrupt_is_not_the_policys_fault() -> None:
    """What is no ``Exception`` goes through, and no job is lost by it."""

    def interrupted(waiting: Sequence[Job], now: float) -> Decision:
        raise KeyboardInterrupt

    scheduler = offered(Custom(interrupted), Job(1, 0.0))

    with pytest.raises(KeyboardInterrupt):
        scheduler.poll(0.0)
    assert scheduler.fault is None
    assert len(scheduler.waiting) == 1


def test_checked_gives_a_good_decision_back() -> None:
    """A decision that keeps its promises is passed on as it is."""
    job = Job(1, 0.0)
    wait, take = Decision(wake_at=2.0), Decision((job,), reason="idle")

    assert check_decision(wait, [job], 1.0) is wait
    assert check_decision(take, [job], 1.0) == take
    with pytest.raises(PolicyError):
        check_decision(wait, [job], 2.0)


# -- observing ----------------------------------------------------------------------------


def test_a_policy_learns_from_every_batch() -> None:
    """``observe`` is called with each record in turn."""
    policy = Custom(all_groups)
    scheduler = Scheduler(policy)
    records = [replace(RECORD, id=i) for i in range(3)]
    for record in records:
        scheduler.finish(record)

    assert policy.observed == records


def test_a_policy_need_not_learn() -> None:
    """A policy without ``observe`` is no fault."""
    scheduler = Scheduler(NoBatching())
    scheduler.finish(RECORD)

    assert scheduler.fault is None
    assert scheduler.policy == NoBatching()


def test_an_observer_that_raises_is_a_fault() -> None:
    """The policy is replaced, and the queue goes on."""
    scheduler = offered(BadObserver(1), Job(1, 0.0), Job(2, 0.0))
    scheduler.poll(0.0)
    scheduler.finish(RECORD)

    assert scheduler.policy is FALLBACK
    assert "raised ZeroDivisionError: cannot learn" in str(scheduler.fault)
    assert taken(scheduler.poll(0.0)) == [2]


# -- draining -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        Window(16, 1000.0),
        ResettingWindow(1000.0),
        Custom(lambda waiting, now: Decision(wake_at=now + 1)),
    ],
    ids=["Window", "ResettingWindow", "for ever"],
)
def test_draining_does_not_wait(policy: Policy) -> None:
    """Polls release all that waits, whatever the policy would wait for, and say that it drains."""
    scheduler = offered(policy, *(Job(i, 0.0, group="ab"[i % 2]) for i in range(7)))
    waited = scheduler.poll(0.0)
    scheduler.drain()
    batches = [scheduler.poll(0.0), scheduler.poll(0.0)]

    assert waited is None
    assert [taken(batch) for batch in batches] == [[0, 2, 4, 6], [1, 3, 5]]
    assert [batch.reason for batch in batches if batch] == ["drain", "drain"]
    assert scheduler.poll(0.0) is None
    assert scheduler.fault is None


def test_draining_leaves_the_choice_to_the_policy() -> None:
    """A policy that takes jobs anyway still chooses which, with its own reason."""
    jobs = [Job(1, 0.0), Job(2, 0.0)]
    scheduler = offered(NoBatching(), *jobs)
    scheduler.drain()

    assert scheduler.poll(0.0) == Batch(1, (jobs[0],), "full", 1)
    assert scheduler.poll(0.0) == Batch(2, (jobs[1],), "full", 0)


def test_draining_holds_for_what_comes_later() -> None:
    """A job that still arrives, and a policy that is still set, wait no more either."""
    scheduler = Scheduler(Greedy())
    scheduler.drain()
    scheduler.policy = Window(16, 1000.0)
    scheduler.offer(Job(1, 0.0))
    batch = scheduler.poll(0.0)

    assert batch is not None
    assert batch.reason == "drain"


# -- anything, in any order ---------------------------------------------------------------

POLICIES: list[Policy] = [
    NoBatching(),
    Greedy(3),
    Window(4, 0.5),
    Window(2, 0.0),
    ResettingWindow(0.25),
    LengthAware(4, 0.3),
    LengthAware(3, 0.5, 60),
    Custom(all_groups),
    Custom(drop_late),
    CoDel(Greedy(2), 0.2, 0.5),
    CoDel(Window(4, 0.5), 0.0, 0.0),
    BadObserver(2),
    *(Custom(decide, "Broken()") for decide in BROKEN.values()),
]


class Queueing(RuleBasedStateMachine):
    """A scheduler under any sequence of events, beside a plain list of what should wait."""

    @initialize(policy=st.sampled_from(POLICIES))
    def begin(self, policy: Policy) -> None:
        """Start with some policy."""
        self.scheduler = Scheduler(policy)
        self.waiting: list[Job] = []
        self.left: list[int] = []
        self.ids = 0
        self.batches = 0
        self.now = 100.0
        self.drained = False

    def leave(self, jobs: Sequence[Job]) -> None:
        """Note that `jobs` have left, each for the first time."""
        for job in jobs:
            self.waiting.remove(job)
            self.left.append(job.id)

    @rule(
        length=st.integers(1, 40),
        group=st.sampled_from(["", "", "b"]),
        patience=st.sampled_from([0.1, 1.0, 50.0, math.inf]),
        count=st.integers(1, 4),
    )
    def offer(self, length: int, group: str, patience: float, count: int) -> None:
        """Requests arrive."""
        for _ in range(count):
            self.ids += 1
            job = Job(self.ids, self.now, length, self.now + patience, group)
            self.scheduler.offer(job)
            self.waiting.append(job)
        assert len(self.scheduler._deadlines) <= 2 * len(self.waiting) + 64

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.25, 0.5, 2.0, 60.0]))
    def go_on(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(job_id=st.integers(1, 60))
    def withdraw(self, job_id: int) -> None:
        """A client goes, perhaps one that was answered before."""
        expected = [job for job in self.waiting if job.id == job_id]
        job = self.scheduler.withdraw(job_id)

        assert job is (expected[0] if expected else None)
        self.leave(expected)

    @rule()
    def expire(self) -> None:
        """Time runs out for some."""
        expected = [job for job in self.waiting if job.deadline <= self.now]
        expired = self.scheduler.expire(self.now)

        assert expired == sorted(expected, key=lambda job: (job.deadline, job.id))
        self.leave(expired)

    @rule(policy=st.sampled_from(POLICIES))
    def swap(self, policy: Policy) -> None:
        """The user sets another policy."""
        self.scheduler.policy = policy

        assert self.scheduler.fault is None
        assert self.scheduler.policy is policy

    @rule()
    def poll(self) -> None:
        """The worker is free."""
        policy, fault = self.scheduler.policy, self.scheduler.fault
        must_fail = bool(self.waiting) and repr(policy) == "Broken()"
        batch = self.scheduler.poll(self.now)
        dropped = self.scheduler.dropped()
        # While it drains, what was accepted is answered.
        assert not (dropped and self.drained)
        assert self.scheduler.dropped() == []
        self.leave(dropped)

        if batch is None:
            self.check_wait()
        else:
            self.check_batch(batch)
        assert (self.scheduler.fault is not fault) or not must_fail
        if self.scheduler.fault is not fault:
            assert self.scheduler.fault is not None
            assert self.scheduler.fault.policy is policy
            assert isinstance(policy, Custom)
            assert self.scheduler.policy is FALLBACK

    def check_wait(self) -> None:
        """To wait is right only while nobody waits, or until a time to come."""
        if self.waiting:
            assert self.now < self.scheduler.wake_at < math.inf
            assert not self.drained
        else:
            assert self.scheduler.wake_at == math.inf

    def check_batch(self, batch: Batch) -> None:
        """Jobs that waited, each once and of one group, the oldest among them."""
        oldest = self.waiting[0]
        self.batches += 1

        assert batch.jobs
        assert {job.group for job in batch.jobs} == {batch.jobs[0].group}
        # None of the policies here passes the oldest over, nor does the fallback.
        assert oldest in batch.jobs
        self.leave(batch.jobs)
        assert (batch.id, batch.waiting) == (self.batches, len(self.waiting))
        assert self.scheduler.wake_at == math.inf

    @rule()
    def finish(self) -> None:
        """A batch has run."""
        policy = self.scheduler.policy
        self.scheduler.finish(RECORD)

        assert (self.scheduler.policy is FALLBACK) or not isinstance(policy, BadObserver)

    @precondition(lambda self: not self.drained)
    @rule(really=st.sampled_from([False, False, False, True]))
    def drain(self, really: bool) -> None:
        """The server stops, once in a while."""
        if really:
            self.scheduler.drain()
            self.drained = True

    @invariant()
    def nothing_is_lost(self) -> None:
        """What was offered waits or has left, and never both."""
        assert list(self.scheduler.waiting) == self.waiting
        assert len(self.left) + len(self.waiting) == self.ids
        assert len(set(self.left)) == len(self.left)

    def teardown(self) -> None:
        """However it went, draining releases everything that is left."""
        self.scheduler.drain()
        self.drained = True
        while self.waiting:
            before = len(self.waiting)
            self.poll()
            assert len(self.waiting) < before

        assert self.scheduler.poll(self.now) is None
        assert sorted(self.left) == list(range(1, self.ids + 1))


def test_every_job_leaves_exactly_once() -> None:
    """Whatever arrives, leaves, expires, raises or is swapped, in any order, no job is lost."""
    run_state_machine_as_test(
        Queueing, settings=settings(max_examples=100, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize("seed", range(4))
def test_length_aware_starves_nobody(seed: int) -> None:
    """Under overload of ever the same length, the one of another length is in the next batch."""
    rng = random.Random(seed)
    scheduler = Scheduler(LengthAware(4))
    waits: list[float] = []
    ids = 0
    for now in range(300):
        for _ in range(rng.randint(3, 6) if now < 200 else 0):
            ids += 1
            length = 500 if rng.random() < 0.05 else rng.randint(9, 11)
            scheduler.offer(Job(ids, float(now), length))
        oldest = next(iter(scheduler.waiting), None)
        batch = scheduler.poll(float(now))
        if oldest is not None:
            assert batch is not None
            assert oldest in batch.jobs
            waits += [now - job.arrived for job in batch.jobs]

    assert scheduler.fault is None
    assert len(waits) + len(scheduler.waiting) == ids


def test_a_late_fault_does_not_replace_a_new_policy() -> None:
    """A policy that fails while another is being set leaves the new one in effect."""

    class Slow:
        """Fails, and is replaced meanwhile."""

        def decide(self, waiting: Sequence[Job], now: float) -> Decision:
            """Fail after another policy was set."""
            scheduler.policy = NoBatching()
            raise RuntimeError("too late")

    faults: list[PolicyFault] = []
    scheduler = Scheduler(Slow(), faults.append)
    scheduler.offer(Job(1, 0.0))
    scheduler.offer(Job(2, 0.0))

    assert scheduler.poll(0.0) is not None  # no job is lost
    assert scheduler.policy == NoBatching()
    assert scheduler.fault is None
    assert [str(fault.error) for fault in faults] == ["too late"]


def test_the_queue_has_one_cost_model() -> None:
    """Its policy decides by the model that `finish` keeps up to date, and learns none itself."""
    policy = CostAware(8)
    scheduler = Scheduler(policy)
    cost = CostModel(fixed=0.01, per_token=0.001)
    scheduler.online_cost.trusted = cost
    scheduler.offer(Job(1, 0.0, length=3))
    batch = scheduler.poll(0.0)
    assert batch is not None
    scheduler.finish(BatchRecord(1, "idle", (3,), 0.0, 0.013))

    assert policy.online_cost is scheduler.online_cost
    assert policy.cost == cost
    assert policy._own._batches == 0


def test_a_policy_brings_what_it_has_learned() -> None:
    """A scheduler begins with a copy of its policy's cost model: two queues do not mix."""
    policy = CostAware(8)
    policy._own.trusted = CostModel(fixed=0.01)
    one, other = Scheduler(policy), Scheduler(policy)
    assert one.online_cost.trusted == other.online_cost.trusted == CostModel(fixed=0.01)
    assert one.online_cost is not other.online_cost
