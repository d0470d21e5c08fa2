"""Running out of memory: how to know it, what to free, and how much to try next time."""

from __future__ import annotations

import gc
import math
import sys
from dataclasses import dataclass

#: what allocators say, where they raise a plain RuntimeError
SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is Python's, a graphics card's or the CPU allocator's want of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in said for sign in SIGNS)


def free_memory() -> None:
    """Give back what is held for nothing: garbage, and the caches of torch."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass
class MemoryLimit:
    """The most padded tokens that a batch may have, learned from the batches that did not fit.

    Halved by a batch that ran out of memory, and raised by a hundredth with each batch that came
    near it and fitted: so a failure costs about one forward in seventy while memory stays short,
    and the ceiling comes back when there is more.
    """

    limit: float = math.inf

    def failed(self, tokens: int) -> None:
        """A batch of several inputs with so many padded tokens ran out of memory."""
        self.limit = max(1.0, min(self.limit, tokens) // 2)

    def fitted(self, tokens: int) -> None:
        """A batch with so many padded tokens ran."""
        if tokens > 0.8 * self.limit:
            self.limit *= 1.01
