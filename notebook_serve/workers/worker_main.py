"""What the worker's process does: makes the model ready, and runs the batches that are sent to it.

Its main thread runs the model. A second one waits for the notebook's end, and ends the process.
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
from .pickling import shapes_only
from .remote_errors import Raised
from .remote_streaming import DistantPrompt, Flags
from .worker_process import Start, Warned

#: of Linux's prctl: the signal to get when the parent has died
PR_SET_PDEATHSIG = 1


def main(conversation: int, life: int, flags: int) -> None:
    """Serve the notebook at the other end of the socket `conversation`, as long as it lives."""
    for fd in (conversation, life, flags):
        os.set_inheritable(fd, False)
    end_with(life)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what a model prints is seen at once
    channel = Channel(socket.socket(fileno=conversation))
    DistantPrompt.speak, DistantPrompt.flags = channel.send, Flags(flags)
    model = load(channel)
    # The notebook may go while a batch runs; nobody is left then to be told.
    with suppress(EOFError, OSError):
        while model is not None:
            answer(channel, model)


def end_with(life: int) -> None:
    """End this process, and what it has started, when nobody holds the other end of the pipe."""
    if sys.platform.startswith("linux"):
        # Native code that keeps the interpreter's lock would keep the thread from its work.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        os.read(life, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="notebook-serve life", daemon=True).start()


def load(channel: Channel) -> ThreadedModel | None:
    """Make the model ready and say so, or say why that is not possible."""
    try:
        start: Start = channel.receive()
        model = made(start)
        if start.front:
            ways = {
                FunctionModel: _without_function,
                EncoderModel: _without_encoder,
                **shapes_only(),
            }
            channel.send(model, devices=False, ways=ways)
        else:
            channel.send(None)
    except BaseException as error:
        with suppress(OSError):
            channel.send(Raised.of(error))
        return None
    return ThreadedModel(model, start.threads, adapts=start.adapts)


def made(start: Start) -> Model:
    """The model that the notebook has sent, or whose loader it has sent."""
    given = start.parcel.open()
    start.parcel.close()
    if start.loads:
        return as_model(call_loader(given, start.device))
    return as_model(move_to_device(given, start.device, own=True))


def _without_function(model: FunctionModel) -> Any:
    # To prepare and to finish takes all but the function itself.
    return copyreg.__newobj__, (FunctionModel,), {**vars(model), "_function": None}  # type: ignore[attr-defined]


def _without_encoder(model: EncoderModel) -> Any:
    return copyreg.__newobj__, (EncoderModel,), {**vars(model), "_encode": None}  # type: ignore[attr-defined]


def answer(channel: Channel, model: ThreadedModel) -> None:
    """Run the next batch. Raises `EOFError` or `OSError` if there is none to come."""
    reply: Any
    before = model.warnings
    try:
        reply = outputs_of(model, channel.receive())
    except (EOFError, OSError):
        raise
    except Exception as error:  # an input that is not understood here
        reply = Raised.of(error)
    if model.warnings != before:
        channel.send(Warned(model.warnings))
    try:
        channel.send(reply, devices=False)
    except OSError:
        raise
    except Exception as error:
        wrong = TypeError(f"an output cannot be sent to the notebook: {error}")
        channel.send(Raised.of(wrong))


def _sendable(output: Any) -> Any:
    """Return an output as it is; what one item raised, in a form that can be sent."""
    return Failure(Raised.of(output.error).error()) if isinstance(output, Failure) else output


def outputs_of(model: ThreadedModel, items: Sequence[Prepared]) -> Any:
    """What the model makes of a batch, or what it raised."""
    try:
        return [_sendable(output) for output in model.run(items)]
    except Exception as error:
        raised, short_of_memory = Raised.of(error), is_out_of_memory(error)
    # Here nothing holds the frames of the failed forward any more.
    if short_of_memory:
        free_memory()
    return raised
