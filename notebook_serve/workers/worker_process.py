"""One worker process with a model, from its start to its end, as the notebook sees it.

The process is spawned, never forked, and does not run the notebook's code: the notebook sends it
the model. It ends with the notebook, even if that is killed: the system closes the pipe between
them.
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
from .remote_errors import RemoteError
from .remote_streaming import EndFlags, PieceMessage, PromptRelay
from .shared_model import SharedModel

#: the program of the process; it finds modules where the notebook finds them
CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from notebook_serve.workers.worker_main import main
main(*map(int, sys.argv[2:]))
"""
#: the usual reasons for some signals
REASONS = {
    signal.SIGKILL: "as the system does when memory runs out",
    signal.SIGSEGV: "a fault in native code",
    signal.SIGABRT: "native code gave up",
}

#: the exceptions of pickle for a value that cannot be sent
UNSENDABLE = (pickle.PicklingError, TypeError, AttributeError, RecursionError)


class ProcessDied(Exception):
    """The worker process ended while it ran these inputs."""

    #: True if text of this batch had already been streamed
    has_streamed = False


class Disconnected(Exception):
    """The process has closed its end of the channel: it has ended, or is about to."""


@dataclass(frozen=True)
class LoadMessage:
    """The first message to a process: its model, and how to load it."""

    model: SharedModel
    #: True if `model` holds a loader, for the process to call
    is_loader: bool
    #: the device to move a pipeline to; empty to leave it where it is
    device: str = ""
    #: True to send back a copy of the model without weights, for preparing and finishing
    returns_copy: bool = False
    #: the number of torch's threads; None for the one in its environment
    threads: int | None = None
    #: True if that number may be adapted
    adapts: bool = False


@dataclass(frozen=True)
class WarningsMessage:
    """The warnings of a process from now on, sent before a reply."""

    sentences: list[str]


class WorkerProcess:
    """A running process. One thread loads and runs; other threads may end it."""

    def __init__(self, message: LoadMessage, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self._channel, self._flags = Channel(ours), EndFlags()
        #: True if the newest batch had streamed text before its end
        self.has_streamed = False
        #: False if the newest message could not be pickled
        self._is_sent = False
        #: sentences about what slows its forward passes
        self.warnings: list[str] = []
        passed = (theirs.fileno(), lifeline, self._flags.fd)
        try:
            path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
            self._process = subprocess.Popen(  # noqa: S603  # nothing of it comes from clients
                [sys.executable, "-c", CODE, path, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=(*passed, message.model.fd),
                env={**os.environ, **environment},
                # An interrupt of the notebook then does not reach the model, and processes that
                # the model starts can be killed with it.
                start_new_session=True,
            )
        except BaseException:
            self._release()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._message = message

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def load(self) -> Any:
        """Wait until the model is loaded; return its copy without weights, or None if not wanted.

        Raises the exception of the loader, or `Disconnected` if the process ends before.
        """
        return self._call(self._message, PromptRelay(self._flags))

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run a batch. Raises the exception of the model, or `Disconnected` if the process ends."""
        relay = PromptRelay(self._flags)
        try:
            outputs: list[Any] = self._call(items, relay)
        except UNSENDABLE as error:
            if self._is_sent:
                raise  # the model itself raised it
            raise InvalidInput(
                f"the input cannot be sent to the worker process: {error}"
            ) from error
        finally:
            self.has_streamed = relay.has_streamed
            relay.close()
        return outputs

    def _call(self, message: Any, relay: PromptRelay) -> Any:
        """Send a message and return the reply, after the pieces and warnings that precede it."""
        try:
            self._is_sent = False
            self._channel.send(message, reducers={Prompt: relay.reduce})
            self._is_sent = True
            while isinstance(reply := self._channel.receive(), (PieceMessage, WarningsMessage)):
                if isinstance(reply, WarningsMessage):
                    self.warnings = reply.sentences
                else:
                    relay.relay(reply)
        except (EOFError, OSError) as error:
            raise Disconnected from error
        if relay.error is not None:
            raise relay.error
        if isinstance(reply, RemoteError):
            raise reply.rebuild()
        return reply

    def wait(self) -> str:
        """Wait for the end of the process, and return its cause in words."""
        code = self._process.wait()
        self._channel.shut_down()  # a process that it has started may hold the other end
        return f"exit status {code}" if code >= 0 else _describe_signal(-code)

    def end(self) -> None:
        """Let the process end after the batch that it runs."""
        self._channel.shut_down()

    def kill(self) -> None:
        """Kill the process, and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Release the resources of a process that has ended and that no thread calls."""
        self.kill()  # the processes that it has started
        self._release()

    def _release(self) -> None:
        self._channel.close()
        self._flags.close()
        os.close(self._lifeline)


def _describe_signal(number: int) -> str:
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"killed by signal {number}"
    return f"killed by {known.name}" + (f" ({REASONS[known]})" if known in REASONS else "")
