"""Streaming from another process: its text arrives here piece by piece, and can be ended here."""

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

#: prompts that one batch may have, at most
MAX_PROMPTS = mmap.PAGESIZE


@dataclass(frozen=True)
class PieceMessage:
    """A piece of text that the process has generated for the prompt of this number."""

    number: int
    piece: Piece


class EndFlags:
    """Memory that two processes share: one byte for each prompt, set when the prompt has ended."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = memory_file(MAX_PROMPTS) if fd is None else fd
        self._memory = mmap.mmap(self.fd, MAX_PROMPTS)

    def __getitem__(self, number: int) -> bool:
        return bool(self._memory[number])

    def __setitem__(self, number: int, ended: bool) -> None:
        self._memory[number] = ended

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()
        os.close(self.fd)


class PromptRelay:
    """The notebook's side of the prompts of one batch that runs in another process."""

    def __init__(self, flags: EndFlags) -> None:
        self._flags = flags
        self._lock = threading.Lock()
        self._prompts: list[Prompt] = []
        #: True once a piece has arrived
        self.has_streamed = False
        #: the exception that a listener raised
        self.error: Exception | None = None

    def reduce(self, prompt: Prompt) -> Any:
        """Reduce a prompt for pickling: to its number, without its listener."""
        number = len(self._prompts)
        self._prompts.append(prompt)
        prompt.on_end = partial(self._set_flag, number)
        if prompt.over:
            prompt.on_end()
        return RemotePrompt, (prompt.inputs, prompt.stops, number, prompt.emit is not None)

    def relay(self, message: PieceMessage) -> None:
        """Pass a piece to its prompt's listener. After an exception of a listener, pass no more."""
        self.has_streamed = True
        prompt = self._prompts[message.number]
        try:
            if prompt.emit is not None and self.error is None:
                prompt.emit(message.piece)
        except Exception as error:
            self.error = error
            prompt.end()

    def close(self) -> None:
        """Detach the prompts, and clear their flags for the next batch."""
        with self._lock:
            for number, prompt in enumerate(self._prompts):
                prompt.on_end = None
                self._flags[number] = False
            self._prompts = []

    def _set_flag(self, number: int) -> None:
        with self._lock:
            if self._prompts:
                self._flags[number] = True


class RemotePrompt(Prompt):
    """The process's side of a prompt; its listener is in the notebook's process."""

    #: of this process: how it sends pieces to the notebook, and which prompts have ended
    send: Callable[[PieceMessage], None]
    flags: EndFlags

    def __init__(self, inputs: Any, stops: tuple[str, ...], number: int, streams: bool) -> None:
        self._number = number
        super().__init__(inputs, stops, self._emit if streams else None)

    def _emit(self, piece: Piece) -> None:
        type(self).send(PieceMessage(self._number, piece))

    @property
    def over(self) -> bool:
        """Return True if the notebook wants no more text for it."""
        return self.flags[self._number]

    @over.setter
    def over(self, over: bool) -> None:
        """Ignore: only the notebook ends a prompt."""
