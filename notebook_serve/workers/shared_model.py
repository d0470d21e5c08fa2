"""A model packed once, for several processes: they map its weights instead of copying them."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .pickling import dumps, loads

#: arrays begin at multiples of so many bytes, as vector instructions need
ALIGNMENT = 64
#: bytes of one write
CHUNK = 1 << 24


@dataclass(frozen=True)
class SharedModel:
    """A nameless file that holds one model or loader, in memory where the system can do that."""

    fd: int
    #: bytes of the pickle, and of each array
    sizes: tuple[int, ...]

    @classmethod
    def pack(
        cls, value: Any, show: Callable[[int, int], None] = lambda done, size: None
    ) -> SharedModel:
        """Pack `value`; `show` is called with the bytes that are written, and their total."""
        data, buffers = dumps(value)
        pieces = [data, *buffers]
        sizes = tuple(piece.nbytes for piece in pieces)
        model = cls(memory_file(_offsets(sizes)[-1]), sizes)
        total = sum(sizes)
        try:
            for n, (piece, offset) in enumerate(zip(pieces, _offsets(sizes), strict=False)):
                with memoryview(piece).cast("B") as view:
                    for at in range(0, len(view), CHUNK):
                        _write(model.fd, view[at : at + CHUNK], offset + at)
                        show(sum(sizes[:n]) + min(at + CHUNK, len(view)), total)
        except BaseException:
            model.close()
            raise
        return model

    def open(self) -> Any:
        """Return a copy of the object. Its arrays share memory until they are written to."""
        offsets = _offsets(self.sizes)
        file = memoryview(mmap.mmap(self.fd, offsets[-1], access=mmap.ACCESS_COPY))
        data, *buffers = [
            file[offset : offset + size] for offset, size in zip(offsets, self.sizes, strict=False)
        ]
        return loads(data, buffers)

    def close(self) -> None:
        """Close the file; objects that were opened stay valid."""
        os.close(self.fd)


def _offsets(sizes: Sequence[int]) -> list[int]:
    """Return the offset of each piece, and last the size of the file."""
    return list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))


def memory_file(size: int) -> int:
    """Return the descriptor of a nameless file of zeros, in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("notebook-serve")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def _write(fd: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
