"""Prompts in another process: who listens here hears what is written there, and may end it."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..models.generation import Piece, Prompt
from .shared_model import memory_file

#: as many prompts as one batch may have
MOST = mmap.PAGESIZE


@dataclass(frozen=True)
class Said:
    """What was just written to the prompt of this number, on its way to who listens."""

    number: int
    piece: Piece


class Flags:
    """Memory that two processes share: a byte for each prompt, which says that it is over."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = memory_file(MOST) if fd is None else fd
        self._memory = mmap.mmap(self.fd, MOST)

    def __getitem__(self, number: int) -> bool:
        return bool(self._memory[number])

    def __setitem__(self, number: int, over: bool) -> None:
        self._memory[number] = over

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self.fd)


class Hearing:
    """The prompts of one batch, while it runs in another process."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._lock = threading.Lock()
        self._prompts: list[Prompt] = []
        #: whether anything was heard
        self.spoken = False
        #: what a listener raised
        self.failed: Exception | None = None

    def send(self, prompt: Prompt) -> Any:
        """How a prompt is sent: without who listens, by its number."""
        number = len(self._prompts)
        self._prompts.append(prompt)
        prompt.on_end = partial(self._over, number)
        if prompt.over:
            prompt.on_end()
        return DistantPrompt, (prompt.inputs, prompt.stops, number, prompt.emit is not None)

    def hear(self, said: Said) -> None:
        """Pass on what was written; who fails to listen hears no more."""
        self.spoken = True
        prompt = self._prompts[said.number]
        try:
            if prompt.emit is not None and self.failed is None:
                prompt.emit(said.piece)
        except Exception as error:
            self.failed = error
            prompt.end()

    def close(self) -> None:
        """The batch is through."""
        with self._lock:
            for number, prompt in enumerate(self._prompts):
                prompt.on_end = None
                self._flags[number] = False
            self._prompts = []

    def _over(self, number: int) -> None:
        with self._lock:
            if self._prompts:
                self._flags[number] = True


class DistantPrompt(Prompt):
    """A prompt whose listener is in the notebook's process."""

    #: of this process: how it speaks to the notebook, and what tells that a prompt is over
    speak: Callable[[Said], None]
    flags: Flags

    def __init__(self, inputs: Any, stops: tuple[str, ...], number: int, heard: bool) -> None:
        self._number = number
        super().__init__(inputs, stops, self._emit if heard else None)

    def _emit(self, piece: Piece) -> None:
        type(self).speak(Said(self._number, piece))

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.flags[self._number]

    @over.setter
    def over(self, over: bool) -> None:
        """Only the notebook says so."""
