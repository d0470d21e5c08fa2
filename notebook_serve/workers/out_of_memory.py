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


@dataclass
class MemoryLimit:
    """The largest number of padded tokens in a batch, learned from batches that did not fit.

    A batch that runs out of memory halves it. Each batch that comes near it and fits raises it by
    one percent. So while memory is short, about one forward pass in seventy fails; when there is
    more memory, the limit recovers.
    """

    limit: float = math.inf

    def failed(self, tokens: int) -> None:
        """Lower the limit: a batch of several inputs with so many tokens ran out of memory."""
        self.limit = max(1.0, min(self.limit, tokens) // 2)

    def fitted(self, tokens: int) -> None:
        """Raise the limit if a batch with so many tokens came near it and ran."""
        if tokens > 0.8 * self.limit:
            self.limit *= 1.01
