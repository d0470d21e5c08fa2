"""Out-of-memory errors: recognition, clean-up, and the batch size to try next."""

from __future__ import annotations

import gc
import math
import sys
from dataclasses import dataclass

#: parts of the messages of allocators that raise a plain RuntimeError
MESSAGES = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if Python, a GPU or the CPU allocator ran out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in message for part in MESSAGES)


def free_memory() -> None:
    """Free garbage and the caches of torch."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


#: the gap between the largest batch that fitted and the smallest that failed, as a share of the
#: first, below which no batch is tried in between
CLOSE = 0.1
#: how much each batch near the limit raises the smallest size that failed, as a share
FORGET = 0.0005


@dataclass
class MemoryLimit:
    """The largest number of padded tokens in a batch, learned from batches that did not fit.

    It lies between the largest size that fitted and the smallest that failed: halfway, as in a
    bisection, until they are close, and then at the size that fitted. From then on each batch near
    the limit raises the size that failed a little, so the limit recovers when there is more memory.
    A failure below a size that fitted shows that there is less: the search goes on below it.
    """

    #: the largest size that fitted, and the smallest that failed, in padded tokens
    fits: float = 0.0
    fails: float = math.inf
    #: number of batches that failed
    failures: int = 0

    @property
    def limit(self) -> float:
        """Most padded tokens of the next batch; infinite before any batch failed."""
        if self.fails == math.inf:
            return math.inf
        if self.fails - self.fits <= CLOSE * self.fits:
            return self.fits
        return max(1.0, (self.fits + self.fails) // 2)

    def failed(self, tokens: int) -> None:
        """Note that a batch of several inputs with so many padded tokens ran out of memory."""
        self.failures += 1
        self.fails = min(self.fails, tokens)
        if self.fits >= tokens:
            self.fits = 0.0

    def fitted(self, tokens: int) -> None:
        """Note that a batch with so many padded tokens ran."""
        if 0.8 * self.limit < tokens and self.limit <= self.fits:
            self.fails *= 1 + FORGET
        self.fits = max(self.fits, tokens)
        self.fails = max(self.fails, tokens + 1)

    def is_exceeded(self, tokens: int) -> bool:
        """Return True if a batch with so many padded tokens is known to fail."""
        return tokens >= self.fails
