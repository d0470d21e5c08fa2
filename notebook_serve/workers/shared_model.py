"""A model packed once, for as many processes as want it: weights are mapped, not copied again."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .pickling import dumps, loads

#: arrays begin at multiples of so many bytes, as computing with them wants
ALIGNED = 64
#: bytes that are written at once
CHUNK = 1 << 24


@dataclass(frozen=True)
class Parcel:
    """A file without a name, in memory where the system can do that, which holds one object."""

    fd: int
    #: bytes of the pickle, and of each array
    sizes: tuple[int, ...]

    @classmethod
    def pack(cls, value: Any, show: Callable[[int, int], None] = lambda done, size: None) -> Parcel:
        """Pack `value`; `show` is told how many bytes are done, and of how many."""
        data, buffers = dumps(value)
        pieces = [data, *buffers]
        sizes = tuple(piece.nbytes for piece in pieces)
        parcel = cls(memory_file(_places(sizes)[-1]), sizes)
        whole = sum(sizes)
        try:
            for n, (piece, place) in enumerate(zip(pieces, _places(sizes), strict=False)):
                with memoryview(piece).cast("B") as view:
                    for at in range(0, len(view), CHUNK):
                        _write(parcel.fd, view[at : at + CHUNK], place + at)
                        show(sum(sizes[:n]) + min(at + CHUNK, len(view)), whole)
        except BaseException:
            parcel.close()
            raise
        return parcel

    def open(self) -> Any:
        """A copy of the object; memory of its arrays is shared until it is written to."""
        places = _places(self.sizes)
        whole = memoryview(mmap.mmap(self.fd, places[-1], access=mmap.ACCESS_COPY))
        data, *buffers = [
            whole[place : place + size] for place, size in zip(places, self.sizes, strict=False)
        ]
        return loads(data, buffers)

    def close(self) -> None:
        """Give the file back; who has opened it keeps what he has."""
        os.close(self.fd)


def _places(sizes: Sequence[int]) -> list[int]:
    """Where each piece begins; last, the size of the whole."""
    return list(accumulate((-(-size // ALIGNED) * ALIGNED for size in sizes), initial=0))


def memory_file(size: int) -> int:
    """A file of zeros without a name, in memory where the system can do that; its descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("notebook-serve")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def _write(fd: int, view: memoryview, place: int) -> None:
    while view:
        written = os.pwrite(fd, view, place)
        view, place = view[written:], place + written
