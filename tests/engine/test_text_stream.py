"""Text in a cell as it is written: `stream` and `astream` of a server and of its models."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from notebook_serve import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NotReady,
    OptionError,
    QueueFull,
    Server,
    Stopping,
)

from ..helpers import hf_client_cases as hub_methods
from ..helpers import small_models
from ..helpers.blocking_model import Steps, eventually
from ..helpers.hf_client_cases import CHATTING, pipeline
from ..helpers.kernels import kernel
from ..http.telemetry.test_tracing import Spans, id_of, linked

Make = Callable[..., Server]
GREEDY: dict[str, Any] = dict(hub_methods.GREEDY)
LONG: dict[str, Any] = {"do_sample": False, "max_new_tokens": 60}


def written(pipe: Any, prompt: Any, **parameters: Any) -> str:
    """The text that the pipeline writes, without the prompt."""
    made = pipe(prompt, return_full_text=False, **parameters)[0]["generated_text"]
    return str(made)


def blocking(server: Server, prompt: Any, **options: Any) -> list[str]:
    """The pieces that `stream` yields."""
    return list(server.stream(prompt, **options))


def awaited(server: Server, prompt: Any, **options: Any) -> list[str]:
    """The pieces that `astream` yields."""

    async def read() -> list[str]:
        return [text async for text in server.astream(prompt, **options)]

    return asyncio.run(read())


def in_a_loop(server: Server, prompt: Any, **options: Any) -> list[str]:
    """The pieces that `stream` yields in a thread whose loop runs, as that of a cell does."""

    async def read() -> list[str]:
        return list(server.stream(prompt, **options))

    return asyncio.run(read())


READERS = [blocking, awaited, in_a_loop]
Reader = Callable[..., list[str]]


@pytest.mark.parametrize("read", READERS)
def test_the_pieces_joined_are_the_text(make: Make, read: Reader) -> None:
    """For random prompts the pieces are what `predict` returns, in more than one part."""
    pipe = pipeline("text-generation")
    server = make(pipe)
    for prompt in small_models.inputs("text-generation", 5, seed=3, most=8):
        pieces = read(server, prompt, **LONG)
        assert all(pieces)
        assert len(pieces) > 1
        (answer,) = server.predict(prompt, return_full_text=False, **LONG)
        assert "".join(pieces) == answer["generated_text"] == written(pipe, prompt, **LONG)
    assert {record.client for record in server.records()} == {"stream", "predict"}
    assert server.stats().outcomes["ok"] == 10


@pytest.mark.parametrize("read", READERS)
def test_a_chat_is_a_prompt(make: Make, read: Reader) -> None:
    """A list of messages is one chat, whose next message is streamed."""
    pipe = pipeline("text-generation")
    messages = [dict(message) for message in CHATTING]
    assert "".join(read(make(pipe), messages, **LONG)) == written(pipe, messages, **LONG)


@pytest.mark.parametrize("read", READERS)
def test_it_ends_before_a_text_to_stop_at(make: Make, read: Reader) -> None:
    """Any part of the text may be one; the stream ends where it first begins."""
    rng = random.Random(8)
    pipe = pipeline("text-generation")
    steps = Steps(pipe)
    whole = written(pipe, "the", **LONG)
    server = make(pipe)
    for _ in range(5):
        begin = rng.randrange(3, len(whole) - 3)
        stop = whole[begin : begin + rng.randint(1, 6)]
        before = steps.count
        pieces = read(server, "the", stop=rng.choice([stop, [stop, "never"], (stop,)]), **LONG)
        assert "".join(pieces) == whole[: whole.index(stop)]
        if whole.index(stop) < len(whole) // 2:
            assert steps.count - before < 60


def test_a_worker_process_streams_too(make: Make) -> None:
    """Pieces, texts to stop at and a withdrawal pass between the processes."""
    pipe = pipeline("text-generation")
    whole = written(pipe, "the", **LONG)
    server = make(pipe, worker="process")
    assert "".join(server.stream("the", **LONG)) == whole
    stop = whole[10:14]
    assert "".join(server.stream("the", stop=stop, **LONG)) == whole[: whole.index(stop)]
    texts = server.stream("the", do_sample=False, max_new_tokens=200, min_new_tokens=200)
    assert next(texts)
    texts.close()
    assert server.predict("the", **GREEDY)
    assert [record.outcome for record in server.records()] == ["ok", "ok", "cancelled", "ok"]


def test_what_is_written_arrives_before_the_rest_is(make: Make) -> None:
    """The first pieces are there while the model is held, and nothing was asked before."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    texts = server.stream("the", **LONG)
    assert len(server.queue()) == 0
    first = [next(texts), next(texts)]
    assert steps.held.wait(30)
    assert server.records() == []
    steps.opened.set()
    assert "".join([*first, *texts]) == written(pipe, "the", **LONG)


def leave_by_break(server: Server) -> None:
    for _ in server.stream("the", **LONG):
        break


def leave_by_close(server: Server) -> None:
    with closing(server.stream("the", **LONG)) as texts:
        next(texts)


def leave_by_exception(server: Server) -> None:
    with contextlib.suppress(ZeroDivisionError):
        for _ in server.stream("the", **LONG):
            1 / 0


def leave_by_async_break(server: Server) -> None:
    async def read() -> None:
        async for _ in server.astream("the", **LONG):
            break
        while not server.records():  # the loop closes what was left, when it comes to it
            await asyncio.sleep(0)

    asyncio.run(read())


def leave_by_aclose(server: Server) -> None:
    async def read() -> None:
        async with aclosing(server.astream("the", **LONG)) as texts:
            await anext(texts)

    asyncio.run(read())


def leave_by_cancel(server: Server) -> None:
    async def read() -> None:
        began = asyncio.Event()

        async def listen() -> None:
            async for _ in server.astream("the", **LONG):
                began.set()

        task = asyncio.create_task(listen())
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(read())


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_close,
        leave_by_exception,
        leave_by_async_break,
        leave_by_aclose,
        leave_by_cancel,
    ],
)
def test_a_reader_that_leaves_ends_the_generation(
    make: Make, leave: Callable[[Server], None]
) -> None:
    """The model stops at the next token, the record says cancelled, the next request is served."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    leave(server)
    (record,) = server.records()
    assert record.outcome == "cancelled"
    steps.opened.set()
    assert server.predict("the", **GREEDY)
    assert steps.count <= 4 + 6


def test_an_interrupt_while_it_waits_ends_the_generation(make: Make) -> None:
    """Ctrl+C, or the stop button of a notebook, raises in the cell and withdraws the request."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)

    def interrupt() -> None:
        assert steps.held.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in server.stream("the", **LONG):
                pass
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert server.records()[0].outcome == "cancelled"
    steps.opened.set()
    assert server.predict("the", **GREEDY)
    assert steps.count <= 4 + 6


@pytest.mark.parametrize("read", READERS)
def test_a_stream_that_leaves_the_queue_never_runs(make: Make, read: Reader) -> None:
    """Its time runs out while it waits behind another request: it is withdrawn unread."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=0)
    server = make(pipe, refuse_late=False)
    (running,) = server._engine.submit(["a"], dict(GREEDY))
    assert steps.held.wait(30)
    with pytest.raises(DeadlineExceeded, match="while it waited"):
        read(server, "the", timeout=0.05, **LONG)
    steps.opened.set()
    running.result(30)
    assert len(server.batches()) == 1


@pytest.mark.parametrize("read", READERS)
def test_time_that_runs_out_in_the_middle(make: Make, read: Reader) -> None:
    """The error comes in the middle, as `predict` raises it, and the model stops."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    with pytest.raises(DeadlineExceeded, match="while it ran"):
        read(server, "the", timeout=0.5, **LONG)
    steps.opened.set()
    assert server.predict("the", **GREEDY)
    assert steps.count <= 4 + 6


@pytest.mark.parametrize("read", READERS)
def test_a_model_that_fails_in_the_middle(make: Make, read: Reader) -> None:
    """Its exception is the cause of the error, as with `predict`."""
    pipe = pipeline("text-generation")
    Steps(pipe, fails_at=4)
    with pytest.raises(ModelFailed, match="a failing step") as caught:
        read(make(pipe), "the", **LONG)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_stop_in_the_middle(make: Make) -> None:
    """A server that stops without draining says so to a stream."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    texts = server.stream("the", **LONG)
    assert next(texts)
    assert steps.held.wait(30)
    stopping = threading.Thread(target=server.stop, args=(False,))
    stopping.start()
    with pytest.raises(Stopping):
        list(texts)
    steps.opened.set()
    stopping.join(30)


# -- wrong calls ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stream", "astream"])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((["a", "b"],), {}, InvalidInput, "takes one prompt, not a list"),
        (("a",), {"timeout": 0}, OptionError, "timeout"),
        (("a",), {"stop": 3}, InvalidInput, "stop"),
        (("a",), {"stop": ["x"] * 17}, InvalidInput, "stop"),
        (("a",), {"return_full_text": True}, InvalidInput, "return_full_text is for `predict`"),
    ],
)
def test_a_wrong_call_is_refused_where_it_stands(
    make: Make,
    name: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """The call itself raises, before anything is read."""
    server = make(pipeline("text-generation"))
    with pytest.raises(error, match=message):
        getattr(server, name)(*arguments, **options)
    with pytest.raises(error, match=message):
        getattr(server["default"], name)(*arguments, **options)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("given", "options"),
    [(3, {}), ("a", {"max_new_tokens": -1}), ("a", {"max_tokens": 4}), ("a", {"num_beams": 2})],
)
def test_an_input_that_the_task_rejects(
    make: Make, read: Reader, given: Any, options: dict[str, Any]
) -> None:
    """The first piece raises what `predict` would."""
    with pytest.raises(InvalidInput):
        read(make(pipeline("text-generation")), given, **options)


@pytest.mark.parametrize("name", ["stream", "astream"])
def test_other_models_have_nothing_to_stream(make: Make, name: str) -> None:
    """A function and a pipeline of another task are refused with a sentence that names them."""
    for model in (lambda inputs: inputs, pipeline("fill-mask")):
        server = make(model)
        with pytest.raises(OptionError, match="only a pipeline for text-generation"):
            getattr(server, name)("a")


@pytest.mark.parametrize("name", ["stream", "astream"])
def test_a_server_that_takes_no_requests_says_so(make: Make, name: str) -> None:
    """Before it is loaded, and after it stopped."""
    opened = threading.Event()

    def loader() -> Any:
        assert opened.wait(60)
        return pipeline("text-generation")

    server = make(loader=loader)
    with pytest.raises(NotReady):
        getattr(server, name)("a")
    opened.set()
    server.wait_ready()
    server.stop()
    with pytest.raises(Stopping):
        getattr(server, name)("a")


def test_a_full_queue_refuses_a_stream(make: Make) -> None:
    """As it refuses any other request."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=0)
    server = make(pipe, max_queue_size=1, refuse_late=False)
    first, second = server.stream("a", **GREEDY), server.stream("b", **GREEDY)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(list, first)
        assert steps.held.wait(30)
        waiting = pool.submit(list, second)
        eventually(lambda: len(server.queue()) == 1, "it waits")
        with pytest.raises(QueueFull):
            server.stream("c", **GREEDY)
        steps.opened.set()
        assert "".join(running.result(30)) == written(pipe, "a", **GREEDY)
        assert "".join(waiting.result(30)) == written(pipe, "b", **GREEDY)


def test_many_at_once_each_have_their_own(make: Make) -> None:
    """Blocking and awaited streams side by side, of two models, are not mixed up."""
    pipe = pipeline("text-generation")
    server = make(pipe)
    other = server.add("other", pipe)
    prompts = small_models.inputs("text-generation", 12, seed=7, most=6)

    async def read(number: int, prompt: str) -> str:
        model = other if number % 3 == 0 else server
        if number % 2:
            return "".join([text async for text in model.astream(prompt, **GREEDY)])
        return "".join(await asyncio.to_thread(lambda: list(model.stream(prompt, **GREEDY))))

    async def read_all() -> list[str]:
        return await asyncio.gather(*(read(*pair) for pair in enumerate(prompts)))

    assert asyncio.run(read_all()) == [written(pipe, prompt, **GREEDY) for prompt in prompts]


def test_other_tasks_go_on_while_one_is_awaited(make: Make) -> None:
    """`astream` leaves the loop free: another task opens the gate that the model waits at."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=1)
    server = make(pipe)

    async def read() -> str:
        texts: list[str] = []

        async def listen() -> None:
            texts.extend([text async for text in server.astream("the", **LONG)])

        task = asyncio.create_task(listen())
        await asyncio.to_thread(steps.held.wait, 30)
        steps.opened.set()
        await task
        return "".join(texts)

    assert asyncio.run(read()) == written(pipe, "the", **LONG)


@pytest.mark.parametrize("read", [blocking, awaited])
def test_a_stream_has_a_span_within_the_callers(make: Make, read: Reader) -> None:
    """It lasts as long as the stream, is linked to its batch, and is not current in between."""
    spans, server = Spans(), make(pipeline("text-generation"))
    server.trace(spans.provider)
    with spans.provider.get_tracer("mine").start_as_current_span("my cell") as mine:
        for _ in server.stream("the", **GREEDY):
            assert trace.get_current_span() is mine
        read(server, "the", **GREEDY)
    eventually(lambda: len(spans.all()) == 5, "all spans have ended")
    streams, batches = spans.named("stream"), spans.named("batch")
    for stream, batch in zip(streams, batches, strict=True):
        assert stream.parent is not None
        assert stream.parent.span_id == mine.get_span_context().span_id
        assert linked(stream) == {id_of(batch)}


# -- in a cell ------------------------------------------------------------------------------

SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from notebook_serve import serve
from tests.helpers import small_models
from tests.helpers.blocking_model import Steps
pipe = small_models.pipeline("text-generation")
long = dict(do_sample=False, max_new_tokens=200, min_new_tokens=200)
whole = pipe("the", return_full_text=False, **long)[0]["generated_text"]
steps = Steps(pipe)
server = serve(pipe, port=0)
"""
INTERRUPTED = """
steps.count, steps._free = 0, 5  # the sixth forward is held
try:
    for number, text in enumerate(server.stream("the", **long)):
        if number == 0:
            print("written", flush=True)
except KeyboardInterrupt:
    steps.opened.set()
    print(server.predict("a", max_new_tokens=2)[0]["generated_text"] != "", steps.count < 20)
print([record.outcome for record in server.records()])
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq")
def test_cells_stream(tmp_path: Path) -> None:
    """A cell prints text as it comes, awaits it, and is interrupted, which ends the generation."""
    with kernel(tmp_path / "errors") as notebook:
        notebook.run(SETUP)
        same = "print(''.join(texts) == whole, len(texts) > 20)"
        for cell in (
            'texts = list(server.stream("the", **long))',
            'texts = [text async for text in server.astream("the", **long)]',
        ):
            printed, _ = notebook.run(f"{cell}\n{same}")
            assert printed == "True True\n"
        printed, _ = notebook.run(INTERRUPTED, interrupt_at="written")
        assert printed.endswith("True True\n['ok', 'ok', 'cancelled', 'ok']\n")
        notebook.run("async for text in server.astream('the', **long):\n    break")
        eventually_cancelled = "print(server.records()[-1].outcome)"
        printed, _ = notebook.run(f"import asyncio\nawait asyncio.sleep(0)\n{eventually_cancelled}")
        assert printed == "cancelled\n"
        assert notebook.said() == []
