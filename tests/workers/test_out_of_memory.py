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


def batches_of(capacity: int, burst: int, memory: MemoryLimit) -> int:
    """Return the number of forward passes for a burst of requests of one token.

    Batches are as large as the limit allows; each that exceeds `capacity` fails and is halved.
    """
    runs = 0

    def run(size: int) -> None:
        nonlocal runs
        if size > 1 and memory.is_exceeded(size):
            ran = False
        else:
            runs += 1
            ran = size <= capacity or size == 1
            if ran:
                memory.fitted(size)
            else:
                memory.failed(size)
        if not ran:
            run(size // 2)
            run(size - size // 2)

    while burst:
        size = int(min(burst, memory.limit))
        run(size)
        burst -= size
    return runs


@pytest.mark.parametrize("capacity", range(1, 32))
def test_the_limit_finds_the_border(capacity: int) -> None:
    """After a few bursts of 32, each needs about as few runs as the capacity allows."""
    memory = MemoryLimit()
    bursts = [batches_of(capacity, 32, memory) for _ in range(10)]
    least = math.ceil(32 / capacity)
    assert bursts[0] <= 2 * least + 9
    assert bursts[1] <= least + 6
    assert max(bursts[5:]) <= least + (1 if capacity > 1 else 0) + (capacity > 10)
    assert memory.fails > capacity


def test_the_second_burst_is_nearly_the_best() -> None:
    """With 32 inputs of which 3 fit, 11 runs are the least; failed parts lower no limit again."""
    memory = MemoryLimit()
    bursts = [batches_of(3, 32, memory) for _ in range(10)]
    assert bursts[1] <= 14
    assert bursts[9] <= 11


def test_the_limit_recovers() -> None:
    """When there is more memory again, batches grow to what fits."""
    memory = MemoryLimit()
    batches_of(3, 32, memory)
    for _ in range(3000):
        batches_of(24, 32, memory)
    assert memory.limit >= 16


def test_the_limit_falls_where_there_is_less_memory() -> None:
    """A failure below a size that fitted before starts the search below it."""
    memory = MemoryLimit()
    batches_of(20, 32, memory)
    batches_of(20, 32, memory)
    assert memory.limit > 15
    for _ in range(3):
        batches_of(4, 32, memory)
    assert memory.limit <= 5
    assert batches_of(4, 32, memory) <= 9


def test_a_small_batch_says_nothing_about_the_limit() -> None:
    """Only batches near the limit raise the size that failed."""
    memory = MemoryLimit()
    memory.fitted(10_000)
    assert memory.limit == math.inf
    memory.failed(1000)
    assert memory.limit == 500
    memory.fitted(100)
    assert memory.fails == 1000


def test_the_limit_never_falls_below_one_token() -> None:
    """A batch of one token can always be tried."""
    memory = MemoryLimit()
    for _ in range(10):
        memory.failed(1)
    assert memory.limit == 1
