"""The command line in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

COMMAND = (sys.executable, "-W", "error", "-m", "notebook_serve")


class Command:
    """A running command, and the lines that it has printed."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.printed: list[str] = []

    def line(self, start: str) -> str:
        """Read up to a line that begins with `start`, and return that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.printed[-1]
        assert self.process.stderr is not None
        raise AssertionError(f"no {start!r} in {self.printed}: {self.process.stderr.read()}")

    def url(self) -> str:
        """Return the address that it prints first."""
        return self.line("loading").split()[-1]

    def end(self, *how: signal.Signals) -> tuple[int, str, str]:
        """Send the signals; return the exit status, and the rest of both streams."""
        for each in how:
            self.process.send_signal(each)
        printed, errors = self.process.communicate(timeout=100)
        return self.process.returncode, printed, errors


#: starts ``notebook-serve`` with arguments, and an environment as a keyword
Start = Callable[..., Command]
