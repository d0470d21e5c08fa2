from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.queueing.jobs import Job
from notebook_serve.queueing.waiting_line import WaitingLine, by_length, mates


def waiting_of(jobs: Sequence[Job]) -> WaitingLine:
    """Return the scheduler's queue with `jobs` in it."""
    waiting = WaitingLine()
    for job in jobs:
        waiting.add(job)
    return waiting


def three() -> list[Job]:
    """Return two jobs of one group and, between them, one of another."""
    return [Job(1, 0.0, 9), Job(2, 1.0, 5, group="b"), Job(3, 2.0, 4)]


def test_it_reads_as_a_sequence_in_the_order_of_arrival() -> None:
    """Length, iteration, indexes and slices are those of a list of the jobs."""
    jobs = three()
    waiting = waiting_of(jobs)

    assert list(waiting) == jobs
    assert list(reversed(waiting)) == jobs[::-1]
    assert len(waiting) == 3
    assert [waiting[i] for i in range(-3, 3)] == [jobs[i] for i in range(-3, 3)]
    assert waiting[1:] == jobs[1:]
    assert waiting[::-1] == jobs[::-1]
    assert waiting.index(jobs[2]) == 2


@pytest.mark.parametrize("index", [0, -1, 1, 7])
def test_an_index_that_is_not_there_raises(index: int) -> None:
    """An empty queue has no valid index, not even at its ends."""
    with pytest.raises(IndexError):
        WaitingLine()[index]


def test_a_job_is_told_by_identity() -> None:
    """An identical job that is not in the queue is not found, nor is another value."""
    job = Job(1, 0.0)
    waiting = waiting_of([job])

    assert job in waiting
    assert Job(1, 0.0) not in waiting
    assert object() not in waiting


def test_a_job_cannot_wait_twice() -> None:
    """An id that is already in the queue is rejected, and the first job stays."""
    job = Job(1, 0.0)
    waiting = waiting_of([job])

    with pytest.raises(ValueError, match="job 1 is already in the queue"):
        waiting.add(Job(1, 5.0))
    assert list(waiting) == [job]


def test_what_does_not_wait_cannot_be_taken_out() -> None:
    """A job is returned when it is first removed, and None after that."""
    job = Job(1, 0.0)
    waiting = waiting_of([job])

    assert waiting.discard(1) is job
    assert waiting.discard(1) is None
    assert waiting.discard(2) is None
    assert not waiting


def test_a_look_by_index_does_not_outlive_a_change() -> None:
    """After each change the indexes are those of the current queue."""
    jobs = three()
    waiting = waiting_of(jobs[:2])

    assert waiting[1] is jobs[1]
    waiting.discard(1)
    waiting.add(jobs[2])
    assert (waiting[0], waiting[1]) == (jobs[1], jobs[2])


def test_the_repr_counts_jobs_and_groups() -> None:
    """The repr says how many jobs wait."""
    assert repr(waiting_of(three())) == "<WaitingLine: 3 jobs in 2 groups>"


@pytest.mark.parametrize("indexed", [False, True])
def test_mates_are_those_of_one_group_oldest_first(indexed: bool) -> None:
    """The default is the oldest job, and a limit counts from the oldest."""
    jobs = three()
    waiting: Sequence[Job] = waiting_of(jobs) if indexed else jobs

    assert mates(waiting) == [jobs[0], jobs[2]]
    assert mates(waiting, jobs[2]) == [jobs[0], jobs[2]]
    assert mates(waiting, jobs[1]) == [jobs[1]]
    assert mates(waiting, limit=1) == [jobs[0]]
    assert mates(waiting, jobs[2], limit=1) == [jobs[0]]
    assert mates(waiting, limit=0) == []


@pytest.mark.parametrize("waiting", [[], WaitingLine()], ids=["list", "Waiting"])
def test_nothing_has_no_mates(waiting: Sequence[Job]) -> None:
    """An empty queue has no jobs to return, and no error."""
    assert mates(waiting) == []


@pytest.mark.parametrize("indexed", [False, True])
def test_by_length_ranks_the_mates_and_finds_the_job(indexed: bool) -> None:
    """Equal lengths are sorted by id, other groups are left out; the index is that of the job."""
    jobs = [Job(1, 0, 5), Job(2, 0, 3), Job(3, 0, 4, group="b"), Job(4, 0, 5), Job(5, 0, 3)]
    waiting: Sequence[Job] = waiting_of(jobs) if indexed else jobs

    ranked, at = by_length(waiting, jobs[3])

    assert [job.id for _, _, job in ranked] == [2, 5, 1, 4]
    assert [length for length, _, _ in ranked] == [3, 3, 5, 5]
    assert at == 3


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 6), st.sampled_from("abc")),
            st.tuples(st.just("discard"), st.integers(0, 40), st.just("")),
            st.tuples(st.just("look"), st.integers(0, 40), st.just("")),
        ),
        max_size=60,
    )
)
def test_indexes_stay_in_step_with_what_waits(steps: list[tuple[str, int, str]]) -> None:
    """After any changes the indexes agree with a search of every job."""
    waiting, plain, ids = WaitingLine(), list[Job](), 0
    for what, number, group in steps:
        if what == "add":
            ids += 1
            job = Job(ids, float(ids), number, group=group)
            waiting.add(job)
            plain.append(job)
        elif what == "discard":
            found = [job for job in plain if job.id == number]
            plain = [job for job in plain if job.id != number]
            assert waiting.discard(number) is (found[0] if found else None)
        elif plain:
            job = plain[number % len(plain)]
            assert waiting[number % len(plain)] is job
            assert mates(waiting, job, 3) == mates(plain, job, 3)
            ranked, at = by_length(waiting, job)
            assert (ranked, at) == by_length(plain, job)
            assert ranked[at][2] is job
        assert list(waiting) == plain
        assert len(waiting) == len(plain)
        assert waiting[:1] == plain[:1]
        assert waiting[-1:] == plain[-1:]
