"""Bisection of a failed batch, so that one bad input does not fail the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Placeholder for an answer: the exception that the model raised for this input alone."""

    error: Exception


def run_with_bisection(
    run: Callable[[Sequence[T]], list[Any]],
    items: Sequence[T],
    failed: Callable[[Exception, Sequence[T]], bool] = lambda error, items: False,
) -> tuple[list[Any], int]:
    """Return the outputs of `run(items)` in order, with a `Failure` for each item that fails alone.

    The second result is the number of extra calls of `run`: 0 without failures, about
    ``2 * log2(n)`` at most for one bad item among n. After each failed call, `failed` is called
    with the error and the items. If it returns True, the same items run again; otherwise each half
    runs.
    """
    try:
        return check_count(run(items), items), 0
    except Exception as error:
        again = failed(error, items)
        if not items:
            raise
        if len(items) == 1 and not again:
            return [Failure(error)], 0
    # Outside the handler: inside it, errors would be chained, and their frames would keep alive the
    # memory that the retry needs.
    return retry(run, items, failed, again)


def check_count(outputs: list[Any], items: Sequence[Any]) -> list[Any]:
    """Return the outputs of a run. Raises `ValueError` unless there is one for each item."""
    if len(outputs) != len(items):
        raise ValueError(f"the model returned {len(outputs)} outputs for {len(items)} inputs")
    return outputs


def retry(
    run: Callable[[Sequence[T]], list[Any]],
    items: Sequence[T],
    failed: Callable[[Exception, Sequence[T]], bool],
    again: bool,
) -> tuple[list[Any], int]:
    """Run items that failed: all of them `again`, or each half; see `run_with_bisection`."""
    if again:
        outputs, extra = run_with_bisection(run, items, failed)
        return outputs, extra + 1
    middle = len(items) // 2
    left, extra_left = run_with_bisection(run, items[:middle], failed)
    right, extra_right = run_with_bisection(run, items[middle:], failed)
    return left + right, extra_left + extra_right + 2
