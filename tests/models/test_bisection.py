"""Bisection of a failed batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.models.bisection import Failure, run_with_bisection


class Poison(Exception):
    """The model's error, with the input that caused it."""


class Model:
    """A function that doubles numbers, and fails for a batch with a poisoned number."""

    def __init__(self, poisoned: frozenset[int]) -> None:
        self.poisoned = poisoned
        self.calls: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        """Run one batch."""
        self.calls.append(list(items))
        for item in items:
            if item in self.poisoned:
                raise Poison(item)
        return [2 * item for item in items]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 33).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_only_the_offenders_fail(case: tuple[int, set[int]]) -> None:
    """Each bad input has its own error and each other input its own answer."""
    size, poisoned = case
    model = Model(frozenset(poisoned))

    outputs, retries = run_with_bisection(model, range(size))

    assert len(outputs) == size
    for item, output in enumerate(outputs):
        if item in poisoned:
            assert isinstance(output, Failure)
            assert isinstance(output.error, Poison)
            assert output.error.args == (item,)
        else:
            assert output == 2 * item
    assert retries == len(model.calls) - 1
    assert retries <= 2 * len(poisoned) * math.ceil(math.log2(size))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 16, 31, 64])
def test_one_offender_costs_a_logarithm(size: int) -> None:
    """One bad input at any place costs at most ``2 * ceil(log2 n)`` extra calls."""
    most = 2 * math.ceil(math.log2(size))

    for at in range(size):
        _, retries = run_with_bisection(Model(frozenset({at})), range(size))
        assert retries <= most


def test_no_offender_costs_nothing() -> None:
    """A batch without errors runs once."""
    model = Model(frozenset())

    assert run_with_bisection(model, [3, 1, 2]) == ([6, 2, 4], 0)
    assert model.calls == [[3, 1, 2]]


def test_a_bad_input_alone_is_not_run_again() -> None:
    """A batch of one input has failed alone already."""
    model = Model(frozenset({0}))

    outputs, retries = run_with_bisection(model, [0])

    assert (len(outputs), retries, len(model.calls)) == (1, 0, 1)


def test_one_failure_is_not_chained_to_another() -> None:
    """The error of an input has no context of errors from larger batches."""
    outputs, _ = run_with_bisection(Model(frozenset({0, 3})), range(4))

    assert [output.error.__context__ for output in outputs if isinstance(output, Failure)] == [
        None,
        None,
    ]


def test_a_batch_that_fails_only_whole_is_answered_in_halves() -> None:
    """If a batch is too large, as when memory runs out, its halves run."""

    def small_only(items: Sequence[int]) -> list[int]:
        if len(items) > 2:
            raise MemoryError
        return list(items)

    assert run_with_bisection(small_only, range(8)) == (list(range(8)), 6)


def test_an_interrupt_is_no_bad_input() -> None:
    """A ``BaseException`` ends the run and fails no input."""
    calls = []

    def interrupted(items: Sequence[int]) -> list[int]:
        calls.append(items)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_with_bisection(interrupted, range(4))
    assert len(calls) == 1
