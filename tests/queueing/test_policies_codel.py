from __future__ import annotations

from collections.abc import Sequence

import pytest

from notebook_serve import CoDel, Greedy, LengthAware, NoBatching, OptionError, Window, parse_policy
from notebook_serve.queueing.jobs import Decision, Job
from notebook_serve.records import BatchRecord


class Deaf:
    """A policy that takes the oldest job and stores the batches that it observes."""

    def __init__(self) -> None:
        self.observed: list[BatchRecord] = []

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest."""
        return Decision((waiting[0],))

    def observe(self, batch: BatchRecord) -> None:
        """Remember."""
        self.observed.append(batch)


def arrived(*times: float) -> list[Job]:
    """Return jobs that arrived at `times`."""
    return [Job(i, at) for i, at in enumerate(times, 1)]


def dropped(policy: CoDel, waiting: list[Job], now: float) -> list[int]:
    """Return the ids that `policy` drops at `now`; if none, the other policy must have decided."""
    decision = policy.decide(waiting, now)
    assert bool(decision.drop) is not bool(decision.take)
    return [job.id for job in decision.drop]


def test_it_drops_only_after_a_whole_interval_of_waiting_for_too_long() -> None:
    """The interval starts with the first late decision; then late jobs are dropped, in order."""
    policy = CoDel(NoBatching(), target=0.2, interval=0.5)

    assert dropped(policy, arrived(0.8), 1.0) == []
    assert dropped(policy, arrived(0.9, 1.1, 1.2), 1.25) == []
    assert dropped(policy, arrived(0.9, 1.1, 1.2), 1.49) == []
    # At 1.5 the third has waited 0.3 as well, but a full batch, of one, remains.
    assert dropped(policy, arrived(0.9, 1.1, 1.2), 1.5) == [1, 2]
    assert dropped(policy, arrived(0.9, 1.4, 1.45), 1.5) == [1]


def test_a_short_queue_now_and_then_is_a_good_queue() -> None:
    """A decision with the oldest job in time starts a new interval."""
    policy = CoDel(NoBatching(), target=0.2, interval=0.5)
    policy.decide(arrived(0.0), 1.0)
    policy.decide(arrived(1.3), 1.4)

    assert dropped(policy, arrived(1.0, 1.1), 1.6) == []
    assert dropped(policy, arrived(1.0, 1.1), 2.0) == []
    assert dropped(policy, arrived(1.0, 1.1), 2.1) == [1]


def test_a_full_batch_is_always_left() -> None:
    """Even if all jobs are late, one full batch of the other policy remains."""
    policy = CoDel(Greedy(4), target=0.1, interval=0.0)
    waiting = arrived(*[0.0] * 10)
    policy.decide(waiting, 5.0)

    assert dropped(policy, waiting, 6.0) == [1, 2, 3, 4, 5, 6]
    assert dropped(policy, waiting[6:], 6.0) == []


def test_a_slow_batch_alone_is_no_overload() -> None:
    """Even if batches are longer than the interval, the first late decision drops nothing."""
    policy = CoDel(NoBatching(), target=0.1, interval=0.5)
    assert dropped(policy, arrived(0.0), 0.0) == []

    assert dropped(policy, arrived(0.1, 0.2), 100.0) == []


def test_it_begins_anew_on_another_clock() -> None:
    """A policy that was late in a server sees its times in the future of a simulation's clock."""
    policy = CoDel(NoBatching(), target=0.2, interval=0.5)
    policy.decide(arrived(1000.0), 2000.0)

    assert dropped(policy, arrived(0.0, 0.1), 1.0) == []
    assert dropped(policy, arrived(0.0, 0.1), 1.5) == [1]


def test_the_other_policy_decides_and_learns() -> None:
    """The other policy chooses among the remaining jobs, and observes every batch."""
    inner = Deaf()
    policy = CoDel(inner)
    record = BatchRecord(1, "full", (1,), 0.0, 1.0)
    policy.observe(record)
    CoDel(Greedy()).observe(record)  # which learns nothing

    assert inner.observed == [record]
    assert len(policy.decide(arrived(0.0, 0.0), 0.0).take) == 1
    assert CoDel(Window(4, 0.5)).decide(arrived(1.0), 1.0).wake_at == 1.5


def test_its_repr_pastes_back() -> None:
    """Its repr does not depend on its state."""
    policy = CoDel(Greedy(8), 0.5, 2)
    policy.decide(arrived(0.0), 10.0)

    assert repr(policy) == "CoDel(policy=Greedy(max_batch_size=8), target=0.5, interval=2)"
    assert parse_policy(repr(policy)) == policy
    assert parse_policy("CoDel") == CoDel(LengthAware())
    assert parse_policy("CoDel(Greedy, 1)") == CoDel(Greedy(), 1)
    assert CoDel("Greedy", 1) == CoDel(Greedy(), 1)
    assert CoDel(Greedy).policy == Greedy()


@pytest.mark.parametrize(
    "text", ["CoDel(Gready)", "CoDel(CoDel(x))", "CoDel(1)", "CoDel('Gready')"]
)
def test_other_values_are_not_policies(text: str) -> None:
    """Options of the inner policy are checked too."""
    with pytest.raises(OptionError):
        parse_policy(text)


@pytest.mark.parametrize("options", [{"policy": 8}, {"target": -1}, {"interval": "1"}])
def test_bad_options_are_rejected(options: dict[str, object]) -> None:
    """The error names the allowed values of each option."""
    with pytest.raises(OptionError, match=next(iter(options))):
        CoDel(**options)  # type: ignore[arg-type]
