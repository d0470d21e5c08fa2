"""Models for worker processes, which import them by name from here."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from typing import Any

import psutil


class OddError(Exception):
    """An error that cannot be rebuilt by calling its class with its arguments."""

    def __init__(self, number: int, *, lock: Any) -> None:
        super().__init__(f"{number} is odd")
        self.number = number
        self.lock = lock


def double(inputs: list[Any], *, factor: int = 2) -> list[Any]:
    """Double each input, but fail or die at some words."""
    for value in inputs:
        match value:
            case "odd":
                raise OddError(3, lock=None)
            case "held":
                raise OddError(5, lock=threading.Lock())
            case "lock":
                return [threading.Lock() for _ in inputs]
            case "exit":
                os._exit(3)
            case "segfault":
                ctypes.string_at(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "end":
                raise EOFError("of a file")
    return [os.getpid() if value == "pid" else value * factor for value in inputs]


def block(inputs: list[Any]) -> list[Any]:
    """Never return."""
    threading.Event().wait()
    return inputs


def children() -> list[psutil.Process]:
    """Return the running child processes of this process."""
    found = psutil.Process().children()
    return [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
