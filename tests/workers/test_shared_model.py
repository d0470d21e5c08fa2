"""A model in shared memory."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from notebook_serve.workers.shared_model import ALIGNMENT, CHUNK, SharedModel

#: the open files of this process, as Linux lists them
FILES = Path("/proc/self/fd")


def open_files() -> int:
    return len(list(FILES.iterdir()))


def test_tied_weights_stay_tied_and_each_copy_is_private() -> None:
    """Copies map one file; a write to one copy changes neither the other nor the original."""
    tied = torch.nn.Parameter(torch.ones(100_000))
    progress: list[tuple[int, int]] = []
    packed = SharedModel.pack({"a": tied, "b": tied}, lambda *done: progress.append(done))
    first, second = packed.open(), packed.open()
    packed.close()
    with torch.no_grad():
        first["a"].fill_(7)

    assert first["a"] is first["b"]
    assert float(second["a"].detach().sum()) == 100_000
    assert float(tied.detach().sum()) == 100_000
    assert packed.sizes[1] == 400_000
    assert progress[-1][0] == progress[-1][1] > 400_000


def test_progress_counts_every_chunk_up_to_the_total() -> None:
    """An array larger than a chunk is written, and reported, in several steps."""
    progress: list[tuple[int, int]] = []
    packed = SharedModel.pack(
        np.zeros(2 * CHUNK + 5, np.uint8), lambda *done: progress.append(done)
    )
    total = sum(packed.sizes)
    packed.close()

    done = [each for each, _ in progress]
    assert len(done) == 4  # the pickle, and three chunks
    assert done == sorted(done)
    assert done[-1] == total
    assert {each for _, each in progress} == {total}


def test_arrays_are_aligned() -> None:
    """Each array begins at a multiple of `ALIGNMENT`, after a pickle of any length."""
    packed = SharedModel.pack([np.zeros(40_001, np.uint8), np.ones(40_003, np.uint8)])
    arrays = packed.open()
    packed.close()

    assert [array.ctypes.data % ALIGNMENT for array in arrays] == [0, 0]
    assert [int(array.sum()) for array in arrays] == [0, 40_003]


@pytest.mark.skipif(not FILES.is_dir(), reason="counts open files as Linux lists them")
def test_no_file_is_left_open() -> None:
    """A model that cannot be packed, and a progress bar that raises, leave no file."""

    def interrupt(done: int, size: int) -> None:
        raise KeyboardInterrupt

    before = open_files()
    with pytest.raises(TypeError, match="cannot pickle"):
        SharedModel.pack(threading.Lock())
    with pytest.raises(KeyboardInterrupt):
        SharedModel.pack("x", interrupt)
    assert open_files() == before
