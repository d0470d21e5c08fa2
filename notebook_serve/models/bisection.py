"""One bad input must not cost the others their answers: a batch that fails is halved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands in the place of an answer: what the model raised for this input alone."""

    error: Exception


def run_isolated(
    run: Callable[[Sequence[T]], list[Any]],
    items: Sequence[T],
    failed: Callable[[Exception, Sequence[T]], bool] = lambda error, items: False,
) -> tuple[list[Any], int]:
    """The outputs of `run(items)` in order, with a `Failure` for each item that fails alone.

    Also returns how many extra calls of `run` that took: none if all went well, at most about
    ``2 * log2(n)`` for one offender among n. `failed` is told of each call that failed, before
    its halves are tried; where it returns True, the same items are tried once more instead.
    """
    try:
        outputs = run(items)
        if len(outputs) != len(items):
            raise ValueError(f"the model gave {len(outputs)} outputs for {len(items)} inputs")
        return outputs, 0
    except Exception as error:
        again = failed(error, items)
        if not items:
            raise
        if len(items) == 1 and not again:
            return [Failure(error)], 0
    # Outside of the handler, so that one failure is not chained to the next, nor its frames,
    # which may hold the memory that was wanting, kept alive.
    if again:
        outputs, extra = run_isolated(run, items, failed)
        return outputs, extra + 1
    middle = len(items) // 2
    left, extra_left = run_isolated(run, items[:middle], failed)
    right, extra_right = run_isolated(run, items[middle:], failed)
    return left + right, extra_left + extra_right + 2
