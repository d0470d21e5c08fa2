"""The program of a worker process: it loads the model, and runs the batches that it receives.

Its main thread runs the model. A second thread waits for the end of the notebook, and then ends the
process.
"""

from __future__ import annotations

import copyreg
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

from ..models.base import Model, Prepared
from ..models.bisection import Failure
from ..models.devices import call_loader, move_to_device
from ..models.encoder import EncoderModel
from ..models.factory import as_model
from ..models.functions.function_model import FunctionModel
from .channel import Channel
from .executors import ThreadedModel
from .out_of_memory import free_memory, is_out_of_memory
from .pickling import weightless_reducers
from .remote_errors import RemoteError
from .remote_streaming import EndFlags, RemotePrompt
from .worker_process import LoadMessage, WarningsMessage

#: option of Linux's prctl: the signal to get when the parent has died
PR_SET_PDEATHSIG = 1


def main(sock: int, lifeline: int, flags: int) -> None:
    """Serve the notebook at the other end of `sock` as long as it lives; takes descriptors."""
    for fd in (sock, lifeline, flags):
        os.set_inheritable(fd, False)
    end_with_notebook(lifeline)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # shows at once what a model prints
    channel = Channel(socket.socket(fileno=sock))
    RemotePrompt.send, RemotePrompt.flags = channel.send, EndFlags(flags)
    model = load(channel)
    with suppress(EOFError, OSError):  # the notebook may end while a batch runs
        while model is not None:
            run_next_batch(channel, model)


def end_with_notebook(lifeline: int) -> None:
    """End this process and all that it has started when the other end of the pipe is closed."""
    if sys.platform.startswith("linux"):
        # Native code that holds the GIL would stop the thread below.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="notebook-serve lifeline", daemon=True).start()


def load(channel: Channel) -> ThreadedModel | None:
    """Load the model and reply; return None after an exception, which is the reply then."""
    try:
        message: LoadMessage = channel.receive()
        model = make_model(message)
        if message.returns_copy:
            reducers = {
                FunctionModel: _reduce_without_function,
                EncoderModel: _reduce_without_encoder,
                **weightless_reducers(),
            }
            channel.send(model, devices=False, reducers=reducers)
        else:
            channel.send(None)
    except BaseException as error:
        with suppress(OSError):
            channel.send(RemoteError.of(error))
        return None
    return ThreadedModel(model, message.threads, adapts=message.adapts)


def make_model(message: LoadMessage) -> Model:
    """Return the model in a message, or the one that its loader makes."""
    given = message.model.open()
    message.model.close()
    if message.is_loader:
        return as_model(call_loader(given, message.device))
    return as_model(move_to_device(given, message.device, own=True))


def _reduce_without_function(model: FunctionModel) -> Any:
    # The notebook prepares and finishes with all but the function itself.
    return copyreg.__newobj__, (FunctionModel,), {**vars(model), "_function": None}  # type: ignore[attr-defined]


def _reduce_without_encoder(model: EncoderModel) -> Any:
    return copyreg.__newobj__, (EncoderModel,), {**vars(model), "_encode": None}  # type: ignore[attr-defined]


def run_next_batch(channel: Channel, model: ThreadedModel) -> None:
    """Receive a batch, run it and reply. Raises `EOFError` or `OSError` if there is none."""
    reply: Any
    before = model.warnings
    try:
        reply = run_batch(model, channel.receive())
    except (EOFError, OSError):
        raise
    except Exception as error:  # an input that cannot be unpickled here
        reply = RemoteError.of(error)
    if model.warnings != before:
        channel.send(WarningsMessage(model.warnings))
    try:
        channel.send(reply, devices=False)
    except OSError:
        raise
    except Exception as error:
        unsendable = TypeError(f"an output cannot be sent to the notebook: {error}")
        channel.send(RemoteError.of(unsendable))


def run_batch(model: ThreadedModel, items: Sequence[Prepared]) -> Any:
    """Return the outputs of a batch, or the exception that the model raised."""
    try:
        return [_make_sendable(output) for output in model.run(items)]
    except Exception as error:
        reply, short_of_memory = RemoteError.of(error), is_out_of_memory(error)
    # After the except block: no variable holds the frames of the failed forward pass any more.
    if short_of_memory:
        free_memory()
    return reply


def _make_sendable(output: Any) -> Any:
    """Return an output as it is, but the exception of one item in a form that can be sent."""
    if isinstance(output, Failure):
        return Failure(RemoteError.of(output.error).rebuild())
    return output
