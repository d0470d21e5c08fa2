"""Out-of-memory errors, and the limit that is learned from them."""

from __future__ import annotations

import math

import pytest
import torch

from notebook_serve.workers.out_of_memory import MemoryLimit, free_memory, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ..."), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_python_and_of_torchs_allocators_are_recognised(
    error: Exception, expected: bool
) -> None:
    """Errors of other types with the same words are not."""
    assert is_out_of_memory(error) is expected


def test_an_allocation_that_fails_is_recognised() -> None:
    """Ask torch for more memory than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.int8)
    assert is_out_of_memory(caught.value)


def test_freeing_memory_collects_cycles_of_garbage() -> None:
    """Objects that refer to each other hold memory until Python looks for them."""
    freed: list[bool] = []

    class Node:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            freed.append(True)

    Node()
    free_memory()

    assert freed == [True]


def test_the_limit_falls_at_once_and_rises_slowly() -> None:
    """After a failure halves it, it takes about seventy full batches to recover."""
    memory = MemoryLimit()
    memory.fitted(10_000)
    assert memory.limit == math.inf
    memory.failed(1000)
    assert memory.limit == 500
    memory.fitted(100)  # far below the limit: no information about it
    assert memory.limit == 500
    batches = 0
    while memory.limit < 1000:
        memory.fitted(int(memory.limit))
        batches += 1
    assert 60 < batches < 80


def test_the_limit_never_falls_below_one_token() -> None:
    """A batch of one token can always be tried."""
    memory = MemoryLimit()
    for _ in range(10):
        memory.failed(1)
    assert memory.limit == 1
