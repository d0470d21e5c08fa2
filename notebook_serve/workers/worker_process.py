"""One process with a model in it, from its start to its end, as seen from the notebook.

It is spawned, never forked, and does not run the notebook's code: what it needs is sent to it. It
ends with the notebook, however that ends: the pipe between them is closed by the system.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..models.base import Prepared
from ..models.generation import Prompt
from .channel import Channel
from .remote_errors import Raised
from .remote_streaming import Flags, Hearing, Said
from .shared_model import Parcel

#: what the process runs; it finds modules where the notebook does
CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from notebook_serve.workers.worker_main import main
main(*map(int, sys.argv[2:]))
"""
#: what is known of some ends
SIGNS = {
    signal.SIGKILL: "as the system does when memory runs out",
    signal.SIGSEGV: "a fault in native code",
    signal.SIGABRT: "native code gave up",
}

#: what pickle raises for a value that it cannot send
UNSENDABLE = (pickle.PicklingError, TypeError, AttributeError, RecursionError)


class ProcessDied(Exception):
    """The worker's process ended while it ran these inputs; it may have `spoken` before."""

    spoken = False


class Silent(Exception):
    """A process does not talk any more: it has ended, or will."""


@dataclass(frozen=True)
class Start:
    """What a process is told when it begins."""

    parcel: Parcel
    #: whether the parcel holds a loader, to be called there, and not a model
    loads: bool
    #: where a pipeline is moved to; empty to leave it where it is
    device: str = ""
    #: whether the notebook wants the model without its weights, to prepare and finish with
    front: bool = False
    #: the number of torch's threads; None for what its environment says
    threads: int | None = None
    #: whether that number may be adapted
    adapts: bool = False


@dataclass(frozen=True)
class Warned:
    """The sentences that a process warns with from now on, sent before a reply."""

    sentences: list[str]


class Process:
    """A running process. One thread loads and asks; others may end it."""

    def __init__(self, start: Start, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        life, self._life = os.pipe()
        self._channel, self._flags = Channel(ours), Flags()
        #: whether anything was heard of the newest batch before its end
        self.spoken = False
        #: whether the newest message has left; if not, it could not be made bytes of
        self._sent = False
        #: sentences about what slows its forward passes
        self.warnings: list[str] = []
        passed = (theirs.fileno(), life, self._flags.fd)
        try:
            path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
            self._process = subprocess.Popen(  # noqa: S603  # nothing of it comes from clients
                [sys.executable, "-c", CODE, path, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=(*passed, start.parcel.fd),
                env={**os.environ, **environment},
                # So an interrupt of the notebook is not one of the model, and all that the model
                # may have started ends with it.
                start_new_session=True,
            )
        except BaseException:
            self._give_back()
            raise
        finally:
            theirs.close()
            os.close(life)
        self._start = start

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def load(self) -> Any:
        """Wait until it has the model; gives the model without weights, if that was wanted.

        Raises what loading raised there, or `Silent` if the process ends before.
        """
        return self._reply_to(self._start, Hearing(self._flags))

    def ask(self, items: Sequence[Prepared]) -> list[Any]:
        """Run a batch there; raises what the model raises, or `Silent` if the process ends."""
        hearing = Hearing(self._flags)
        try:
            outputs: list[Any] = self._reply_to(items, hearing)
        except UNSENDABLE as error:
            if self._sent:
                raise  # the model itself raised it
            raise InvalidInput(
                f"the input cannot be sent to the worker's process: {error}"
            ) from error
        finally:
            self.spoken = hearing.spoken
            hearing.close()
        return outputs

    def _reply_to(self, message: Any, hearing: Hearing) -> Any:
        try:
            self._sent = False
            self._channel.send(message, ways={Prompt: hearing.send})
            self._sent = True
            while isinstance(reply := self._channel.receive(), (Said, Warned)):
                if isinstance(reply, Warned):
                    self.warnings = reply.sentences
                else:
                    hearing.hear(reply)
        except (EOFError, OSError) as error:
            raise Silent from error
        if hearing.failed is not None:
            raise hearing.failed
        if isinstance(reply, Raised):
            raise reply.error()
        return reply

    def wait(self) -> str:
        """Wait for its end, and say what that was."""
        code = self._process.wait()
        self._channel.shut()  # a process that it has started may hold the other end
        return f"exit status {code}" if code >= 0 else _killed_by(-code)

    def end(self) -> None:
        """Ask it to end, once it is through with what it runs."""
        self._channel.shut()

    def kill(self) -> None:
        """End it, and whatever it has started, at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give back what it took, once it has ended and nobody asks it any more."""
        self.kill()  # what it has started
        self._give_back()

    def _give_back(self) -> None:
        self._channel.close()
        self._flags.close()
        os.close(self._life)


def _killed_by(number: int) -> str:
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"killed by signal {number}"
    return f"killed by {known.name}" + (f" ({SIGNS[known]})" if known in SIGNS else "")
