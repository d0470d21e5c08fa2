"""Prompts in another process: their text is streamed here, and ended from here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from notebook_serve import ModelFailed, Server
from notebook_serve.models.generation import GeneratedSequence, Piece, Prompt
from notebook_serve.workers.pickling import dumps, loads
from notebook_serve.workers.remote_streaming import (
    EndFlags,
    PieceMessage,
    PromptRelay,
    RemotePrompt,
)

from ..helpers import small_models

Make = Callable[..., Server]
PIECES = [Piece(n, f"piece {n}", special=False) for n in range(3)]


@pytest.fixture
def flags() -> Iterator[EndFlags]:
    """Flags that are closed at the end."""
    flags = EndFlags()
    yield flags
    flags.close()


# -- in one process ---------------------------------------------------------------------------


def send(relay: PromptRelay, prompt: Prompt) -> RemotePrompt:
    """Return the other side of a prompt, as a worker process unpickles it."""
    remote = loads(*dumps(prompt, reducers={Prompt: relay.reduce}))
    assert isinstance(remote, RemotePrompt)
    return remote


@pytest.fixture
def sent(flags: EndFlags, monkeypatch: pytest.MonkeyPatch) -> list[PieceMessage]:
    """Set what a worker process sets; return the list of the messages that it sends."""
    messages: list[PieceMessage] = []
    monkeypatch.setattr(RemotePrompt, "send", messages.append, raising=False)
    monkeypatch.setattr(RemotePrompt, "flags", EndFlags(os.dup(flags.fd)), raising=False)
    return messages


def test_pieces_reach_the_listener_of_their_prompt(
    flags: EndFlags, sent: list[PieceMessage]
) -> None:
    """Each message has the number of its prompt in the batch."""
    relay = PromptRelay(flags)
    heard: list[tuple[str, Piece]] = []
    prompts = [Prompt(name, ["."], partial(lambda *x: heard.append(x), name)) for name in "ab"]
    remote = [send(relay, prompt) for prompt in prompts]
    assert [(each.inputs, each.stops) for each in remote] == [("a", (".",)), ("b", (".",))]
    before = relay.has_streamed

    for prompt, piece in zip((remote[1], remote[0], remote[1]), PIECES, strict=True):
        assert prompt.emit is not None
        prompt.emit(piece)
    for message in sent:
        relay.relay(message)

    assert heard == [("b", PIECES[0]), ("a", PIECES[1]), ("b", PIECES[2])]
    assert (before, relay.has_streamed) == (False, True)
    relay.close()


def test_a_prompt_without_a_listener_sends_no_pieces(
    flags: EndFlags, sent: list[PieceMessage]
) -> None:
    """It can be batched with others then."""
    relay = PromptRelay(flags)
    assert send(relay, Prompt("a")).emit is None
    relay.close()


def test_an_end_here_is_seen_there(flags: EndFlags, sent: list[PieceMessage]) -> None:
    """Also that of a prompt that had ended before it was sent, and of that prompt only."""
    relay = PromptRelay(flags)
    early, late, other = Prompt("early"), Prompt("late"), Prompt("other")
    early.end()
    remote = [send(relay, prompt) for prompt in (early, late, other)]
    assert [each.over for each in remote] == [True, False, False]
    late.end()
    assert [each.over for each in remote] == [True, True, False]

    relay.close()
    assert [each.over for each in remote] == [False, False, False]
    other.end()  # it belongs to no batch any more
    assert not remote[2].over


def test_a_listener_that_fails_ends_its_prompt(flags: EndFlags, sent: list[PieceMessage]) -> None:
    """Its exception is kept, and no more pieces are passed on."""
    relay = PromptRelay(flags)
    heard: list[Piece] = []

    def fail(piece: Piece) -> None:
        heard.append(piece)
        raise ValueError("a broken listener")

    remote = send(relay, Prompt("a", (), fail))
    for piece in PIECES:
        relay.relay(PieceMessage(0, piece))

    assert heard == PIECES[:1]
    assert str(relay.error) == "a broken listener"
    assert remote.over
    relay.close()


# -- in a worker process ----------------------------------------------------------------------


@pytest.fixture
def server(make: Make) -> Server:
    """Return a server that generates text in a process."""
    loader = partial(small_models.pipeline, "text-generation")
    server = make(loader=loader, worker="process")
    server.wait_ready(100)
    return server


def generate(server: Server, prompt: Prompt) -> GeneratedSequence:
    """Generate 40 tokens, unless the prompt is ended before."""
    settings: dict[str, Any] = {"max_new_tokens": 40, "min_new_tokens": 40, "do_sample": False}
    (future,) = server._engine.submit([prompt], settings)
    (written,) = future.result(60).value
    assert isinstance(written, GeneratedSequence)
    return written


def test_text_is_streamed_from_a_process_and_ended_from_here(server: Server) -> None:
    """Each token arrives once; the end of one prompt, or an error, does not touch the next."""
    pieces: list[Piece] = []
    whole = generate(server, Prompt("the queue"))
    assert generate(server, Prompt("the queue", (), pieces.append)) == whole
    assert tuple(piece.token for piece in pieces) == whole.tokens

    def end_after_three(piece: Piece) -> None:
        heard.append(piece)
        if len(heard) == 3:
            prompt.end()

    heard: list[Piece] = []
    prompt = Prompt("the queue", (), end_after_three)
    assert whole.tokens[:3] == generate(server, prompt).tokens[:3]
    assert len(heard) < 40

    def fail(piece: Piece) -> None:
        raise ValueError("a broken listener")

    with pytest.raises(ModelFailed, match="a broken listener"):
        generate(server, Prompt("the queue", (), fail))
    assert generate(server, Prompt("the queue")) == whole
    assert server.stats().restarts == {}


def test_a_process_that_dies_while_it_streams_is_not_asked_again(server: Server) -> None:
    """A second run would send the same tokens twice."""

    def kill(piece: Piece) -> None:
        heard.append(piece)
        os.kill(server.stats().workers[0].pid or 0, signal.SIGKILL)

    heard: list[Piece] = []
    whole = generate(server, Prompt("the queue"))
    with pytest.raises(ModelFailed, match="SIGKILL"):
        generate(server, Prompt("the queue", (), kill))
    assert [piece.token for piece in heard] == list(whole.tokens[: len(heard)])
    assert generate(server, Prompt("the queue")) == whole
