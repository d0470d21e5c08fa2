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
    run: Callable[[Sequence[T]], list[Any]], items: Sequence[T]
) -> tuple[list[Any], int]:
    """The outputs of `run(items)` in order, with a `Failure` for each item that fails alone.

    Also returns how many extra calls of `run` that took: none if all went well, at most about
    ``2 * log2(n)`` for one offender among n.
    """
    try:
        return run(items), 0
    except Exception as error:
        if len(items) == 1:
            return [Failure(error)], 0
    # Outside of the handler, so that one failure is not chained to the next.
    middle = len(items) // 2
    left, extra_left = run_isolated(run, items[:middle])
    right, extra_right = run_isolated(run, items[middle:])
    return left + right, extra_left + extra_right + 2
