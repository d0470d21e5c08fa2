from __future__ import annotations

import random

import pytest

from notebook_serve.engine.failures import (
    FAILING_AFTER,
    KEEP_ERRORS,
    MOST_MESSAGE,
    FailureStreak,
    NewestErrors,
)


@pytest.mark.parametrize("run", range(50))
def test_a_model_fails_exactly_when_its_newest_requests_failed(run: int) -> None:
    """For any answers and failures: the newest three, or all of them where fewer ran."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    chosen, streak, ran = random.Random(seed), FailureStreak(), list[bool]()
    share = chosen.random()
    for _ in range(200):
        answered = chosen.random() < share
        streak.ran(int(answered), int(not answered))
        ran.append(answered)

        assert streak.failing == (not any(ran[-FAILING_AFTER:]))


@pytest.mark.parametrize("run", range(50))
def test_the_log_is_told_once_of_each_spell(run: int) -> None:
    """Batches of any size: "failing" and "recovered" alternate, and agree with the streak."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    chosen, streak, told = random.Random(seed), FailureStreak(), list[str]()
    for _ in range(300):
        before = streak.count
        answered, failed = chosen.choice([(1, 0), (0, 1), (0, 2), (3, 5), (0, 0), (0, 1)])
        turn = streak.ran(answered, failed)
        told += [turn] if turn else []

        assert (turn == "failing") == (before < FAILING_AFTER <= streak.count)
        assert (turn == "recovered") == (answered > 0 and before >= FAILING_AFTER)
    assert told[::2] == ["failing"] * len(told[::2])
    assert told[1::2] == ["recovered"] * len(told[1::2])


def test_one_bad_input_among_good_ones_is_no_failing() -> None:
    """A batch in which the model answered something shows that it can."""
    streak = FailureStreak()
    for _ in range(100):
        streak.ran(1, 5)
        assert not streak.failing


def test_equal_errors_in_a_row_are_one() -> None:
    """The record counts them, and has the time and the request of the newest."""
    errors = NewestErrors("m")
    for n, error in enumerate([KeyError("a"), KeyError("a"), KeyError("b"), KeyError("a")]):
        errors.add(error, float(n), 1000.0 + n, str(n))
    found = [
        (error.message, error.times, error.at, error.request) for error in errors.newest_first()
    ]

    assert found == [("'a'", 1, 3.0, "3"), ("'b'", 1, 2.0, "2"), ("'a'", 2, 1.0, "1")]
    assert errors.last == errors.newest_first()[0]
    assert (errors.last.type, errors.last.model, errors.last.when) == ("KeyError", "m", 1003.0)


def test_only_the_newest_errors_are_kept() -> None:
    """Memory has a limit."""
    errors = NewestErrors("m")
    for n in range(3 * KEEP_ERRORS):
        errors.add(ValueError(n), float(n), 0.0)

    assert len(errors.newest_first()) == KEEP_ERRORS
    assert errors.newest_first()[0].message == str(3 * KEEP_ERRORS - 1)


def test_a_long_message_is_cut() -> None:
    """An exception may quote the whole input of a client; equal beginnings are equal errors."""
    errors = NewestErrors("m")
    for end in "ab":
        errors.add(ValueError("x" * 10_000_000 + end), 0.0, 0.0)
    (error,) = errors.newest_first()

    assert error.message == "x" * MOST_MESSAGE + "…"
    assert error.times == 2


def test_a_message_that_cannot_be_read_is_said_so() -> None:
    """A broken exception does not break the server."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    errors = NewestErrors("m")
    errors.add(Broken(), 0.0, 0.0)

    assert errors.newest_first()[0].message == "(its message cannot be read: RuntimeError)"
