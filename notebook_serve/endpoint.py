"""`Endpoint`: one model of a server, called without HTTP, inspected and controlled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

from .display import Table, duration
from .engine.engine import Engine
from .engine.registry import FIRST, EngineRegistry
from .engine.requests import Answer
from .engine.text_stream import BlockingStream, Stream, Writing, check_writes
from .errors import InvalidInput, NotReady, OptionError
from .extras import require
from .models.base import Model, ServedModel
from .models.parameters import STOP, Parameters
from .options import HTTP_OPTIONS, MODEL_OPTIONS
from .queueing.cost_model import CostModel
from .queueing.policies import Policy, PolicyLike, label
from .queueing.policy_registry import as_policy
from .queueing.record_log import Batches, Errors, Requests
from .queueing.stats import SINCE, Queue, Stats
from .records import PolicyChange
from .simulation.overheads import with_overheads
from .simulation.replay import RECORDED, replay
from .simulation.report import Report
from .simulation.simulator import simulate
from .validation.checks import check_seconds
from .validation.fixed_attributes import FixedAttributes
from .validation.option_hints import check_forwarded
from .validation.tracebacks import entry_point

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .dashboard.widget import Dashboard

#: seconds between two looks for an interrupt while a thread waits
INTERRUPT_POLL = 0.5
#: parameters of `stream` in addition to those of the pipeline
STREAMING = Parameters("stream", {"stop": STOP})


class Endpoint(FixedAttributes):
    """A model with its own queue, workers and policy, at ``/models/{name}`` of a server.

    ``server.add(name, model)`` makes one and ``server[name]`` returns it. A `Server` is the
    endpoint of its first model as well.
    """

    _calls: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("name", "model", "loader", *MODEL_OPTIONS), "server.add(..."),
        **dict.fromkeys(HTTP_OPTIONS, "serve(..."),
    }

    def __init__(
        self, engine: Engine, engines: EngineRegistry, server_url: Callable[[], str]
    ) -> None:
        self._engine = engine
        self._engines = engines
        self._server_url = server_url

    @property
    def name(self) -> str:
        """Name of the model; the first model has the name of the server."""
        return self._engine.name

    @property
    def url(self) -> str:
        """Address of the model, such as ``http://127.0.0.1:8000/models/default``."""
        # The name of a server may be one that a path of a model cannot have.
        first = self._engine is self._engines.first
        return f"{self._server_url()}/models/{FIRST if first else self.name}"

    @property
    def state(self) -> str:
        """One of ``new, loading, ready, failing, paused, stopping, stopped, failed, dead``."""
        return self._engine.state

    @property
    def model(self) -> ServedModel:
        """Description of the model: its task, if it runs in batches and why, its parameters.

        Raises `NotReady` before it is loaded.
        """
        if self._engine.model is None:
            raise NotReady("the model is not loaded yet; wait_ready() waits for it")
        return ServedModel.of(self._engine.model)

    @entry_point
    def wait_ready(self, timeout: float | None = None, progress: bool | None = None) -> None:
        """Wait until the model is loaded, at most `timeout` seconds.

        `progress` shows a bar, which needs tqdm; None shows one in a terminal or notebook if the
        wait takes longer than a second. Raises `NotReady` after `timeout`, and `LoaderFailed` with
        the exception of the loader as its cause.
        """
        check_seconds("timeout", timeout, zero=True, endless=True, none=True)
        self._engine.wait_ready(timeout, progress)

    # -- calls without HTTP -------------------------------------------------------------

    @entry_point
    def predict(self, inputs: Any, *, timeout: float | None = None, **parameters: Any) -> Any:
        """Run the model on `inputs` through the same queue as HTTP, and return the answer.

        The answer is that of ``pipe(inputs)``. A list makes one request of each item, as over
        HTTP, and returns the list of their answers. `timeout` (seconds) can shorten the server's.
        Raises a `ServeError`.
        """
        self._check_thread("predict")
        with self._span():
            futures, many = self._submit(inputs, parameters, timeout)
            try:
                values = [_wait(future).value for future in futures]
            finally:
                for future in futures:
                    future.cancel()  # if the cell was interrupted, or an item has failed
        self._engine.health.answer_sent()
        return values if many else values[0]

    @entry_point
    async def apredict(
        self, inputs: Any, *, timeout: float | None = None, **parameters: Any
    ) -> Any:
        """Return the same as `predict`, for ``await``; if it is cancelled, so is the request."""
        with self._span():
            futures, many = self._submit(inputs, parameters, timeout)
            try:
                answers = await asyncio.gather(*map(asyncio.wrap_future, futures))
            finally:
                for future in futures:
                    future.cancel()
        self._engine.health.answer_sent()
        values = [answer.value for answer in answers]
        return values if many else values[0]

    def _submit(
        self, inputs: Any, parameters: Mapping[str, Any], timeout: float | None
    ) -> tuple[list[Future[Answer]], bool]:
        check_seconds("timeout", timeout, none=True)
        self._check_served()
        self._engine.check_open("predict", timeout)
        model = self._engine.model
        assert model is not None  # or `check_open` would have raised
        _check_spelling(model, parameters)
        parts = model.split(inputs, parameters)
        wanted = [inputs] if parts is None else parts
        futures = self._engine.submit(wanted, parameters, timeout=timeout, client="predict")
        return futures, parts is not None

    @entry_point
    def stream(
        self,
        inputs: Any,
        *,
        stop: str | Sequence[str] = (),
        timeout: float | None = None,
        **parameters: Any,
    ) -> Generator[str, None, None]:
        """Yield the generated text piece by piece, while the model generates it.

        ``for text in server.stream("Once", max_new_tokens=50): print(text, end="")``. The joined
        pieces are the text that `predict` returns with ``return_full_text=False``. The prompt is a
        text, or a chat: a list of messages, each a dict with ``role`` and ``content``.

        The request enters the queue when the first piece is read, and runs in a batch of its own.
        A ``break``, an interrupt of the cell, or `close` cancels it: the model stops at the next
        token.

        Args:
            inputs: One prompt.
            stop: At most 16 texts to stop at; they are not yielded.
            timeout: Seconds for the whole text; can shorten the server's.
            parameters: Those of the pipeline, such as ``max_new_tokens`` and ``temperature``.

        Raises:
            OptionError: The model is no pipeline for text generation, or an option is invalid.
            ServeError: As `predict` does; also between two pieces.
        """
        self._check_thread("stream")
        stops = self._check_stream(inputs, stop, timeout, parameters)
        return self._read(BlockingStream(stops), inputs, parameters, timeout)

    def _read(
        self,
        stream: BlockingStream,
        prompt: Any,
        parameters: Mapping[str, Any],
        timeout: float | None,
    ) -> Generator[str, None, None]:
        with self._writing(stream, prompt, parameters, timeout):
            yield from stream.texts()

    @entry_point
    def astream(
        self,
        inputs: Any,
        *,
        stop: str | Sequence[str] = (),
        timeout: float | None = None,
        **parameters: Any,
    ) -> AsyncGenerator[str, None]:
        """Yield the same as `stream`, for ``async for``; other tasks of the loop keep running.

        ``async for text in server.astream("Once"): print(text, end="")``. If the task that reads it
        is cancelled, so is the request.
        """
        stops = self._check_stream(inputs, stop, timeout, parameters)
        return self._aread(stops, inputs, parameters, timeout)

    async def _aread(
        self,
        stops: Sequence[str],
        prompt: Any,
        parameters: Mapping[str, Any],
        timeout: float | None,
    ) -> AsyncGenerator[str, None]:
        stream = Stream(stops)
        with self._writing(stream, prompt, parameters, timeout):
            async for text in stream.texts():
                yield text

    def _check_stream(
        self,
        inputs: Any,
        stop: str | Sequence[str],
        timeout: float | None,
        parameters: Mapping[str, Any],
    ) -> list[str]:
        """Return the texts to stop at; raise `OptionError` or `InvalidInput` for a wrong call."""
        check_seconds("timeout", timeout, none=True)
        self._check_served()
        self._engine.check_open("stream", timeout)
        model = self._engine.model
        assert model is not None  # or `check_open` would have raised
        check_writes(model, OptionError)
        stops: Any = list(stop) if isinstance(stop, tuple) else stop
        STREAMING.check({"stop": stops} if stops else {})
        if model.split(inputs, parameters) is not None:
            raise InvalidInput("`stream` takes one prompt, not a list of prompts")
        for name in ("return_full_text", "return_tensors"):
            if parameters.get(name):
                raise InvalidInput(f"{name} is for `predict`; a stream has only the new text")
        return [stops] if isinstance(stops, str) else stops

    def _check_thread(self, caller: str) -> None:
        """Raise `OptionError` on a thread of the model, which would wait for itself."""
        if self._engine.on_own_thread():
            raise OptionError(f"{caller}() was called from inside the model; this would deadlock")

    def _check_served(self) -> None:
        """Raise `OptionError` if the server no longer has this model."""
        if self._engine not in self._engines.values():
            raise OptionError(
                f"the server no longer has model {self.name!r}: it was removed or replaced; "
                f"server.models lists the present ones"
            )

    @contextlib.contextmanager
    def _writing(
        self, writing: Writing, prompt: Any, parameters: Mapping[str, Any], timeout: float | None
    ) -> Iterator[None]:
        """Submit `writing`, and cancel it at the end of the context."""
        tracing, none = self._engines.tracing, contextlib.nullcontext()
        name = f"stream {self.name}"
        span = contextlib.nullcontext(none) if tracing is None else tracing.lasting(name, self.name)
        with contextlib.closing(writing), span as current:
            with current:
                writing.submit(self._engine, prompt, parameters, timeout=timeout, client="stream")
            yield

    def _span(self) -> AbstractContextManager[None]:
        tracing = self._engines.tracing
        if tracing is None:
            return contextlib.nullcontext()
        return tracing.call(f"predict {self.name}", self.name)

    # -- state and control --------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """Policy in effect; another one can be set and decides from the next batch on."""
        return self._engine.policy

    @policy.setter
    @entry_point
    def policy(self, policy: PolicyLike) -> None:
        self._check_served()
        self._engine.policy = as_policy(policy)

    def pause(self) -> None:
        """Stop dispatching batches; requests still enter the queue, and a running batch ends."""
        self._engine.pause(True)

    def resume(self) -> None:
        """Dispatch batches again, after `pause`."""
        self._engine.pause(False)

    def stats(self) -> Stats:
        """Return the present statistics: a table in a cell, a frozen object in code.

        Each figure names its span of time: now, the last 10 s, or since the start.
        """
        return self._engine.stats()

    def records(self) -> Requests:
        """Return the records of the newest requests that ended, oldest first."""
        return Requests(self._engine.requests.records())

    def batches(self) -> Batches:
        """Return the records of the newest batches, oldest first."""
        return Batches(self._engine.requests.batches())

    def errors(self) -> Errors:
        """Return the newest errors since the start, newest first: a list, a table in a cell.

        They are failures of the model and the policy; rejected inputs are not among them.
        """
        return Errors(self._engine.health.errors())

    def policy_changes(self) -> list[PolicyChange]:
        """Return the policies that took effect since the start, oldest first."""
        return self._engine.policy_changes()

    def queue(self) -> Queue:
        """Return the requests in the queue, oldest first."""
        return self._engine.requests.queue()

    @entry_point
    def dashboard(self) -> Dashboard:
        """Return a live dashboard for a cell, with controls; ``GET /`` serves it as a page.

        Its data come through the kernel's connection, so it works if the browser cannot reach the
        server, and updates while a cell runs. It shows one model at a time, this one first. Raises
        `MissingExtra` without the extra ``notebook``.
        """
        require("anywidget", "notebook")
        from .dashboard.widget import Dashboard

        return Dashboard(self._engines, self.name)

    # -- simulation ---------------------------------------------------------------------

    @property
    def limits(self) -> dict[str, Any]:
        """Queue limit, timeout, early rejection and number of workers, as options of `simulate`."""
        engine = self._engine
        return {
            "max_queue_size": engine.admission.max_queue_size,
            "timeout": engine.timeout,
            "refuse_late": engine.admission.refuse_late,
            "replicas": len(engine.runner.executors),
        }

    @entry_point
    def fit_cost(self) -> CostModel:
        """Fit a cost model to the newest batches; it reports its error and warnings.

        The overhead between batches and per request is measured too. Results that use the model
        carry its warnings: `what_if`, `compare`, `capacity`, `plan`, and every plot. Raises
        `OptionError` if no batch has run.
        """
        batches = [batch for batch in self.batches() if not batch.retries]
        return with_overheads(CostModel.fit(batches), self.records(), batches)

    @entry_point
    def what_if(
        self, policy: PolicyLike, *, cost: CostModel | None = None, **options: Any
    ) -> Report:
        """Simulate the newest requests (up to 10,000) under another policy.

        Arrival times and lengths are the recorded ones. Batches take the time that `cost` predicts,
        by default that of `fit_cost`. To see how far to trust the result, simulate the policy that
        is in effect. `options` are those of `simulate`, such as ``replicas=2``; `limits` has the
        defaults. The notes of the report have the warnings of `cost`, and the policies that served
        the requests if there were several. Raises `OptionError` if no request was served.
        """
        check_forwarded(Endpoint.what_if, simulate, options, RECORDED)
        known = self.fit_cost() if cost is None else cost
        settings = {**self.limits, **options}
        changes = self.policy_changes()
        return replay(self.records(), as_policy(policy), known, changes=changes, **settings)

    # -- display ------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Endpoint {self.name!r}: {self.state}, {label(self.policy)}>"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return endpoints_table([self]).bundle()


class Endpoints(Mapping[str, Endpoint]):
    """Models of a server by name: a mapping in code, a table in a cell."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = dict(endpoints)

    def __getitem__(self, name: str) -> Endpoint:
        return self._endpoints[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._endpoints)

    def __len__(self) -> int:
        return len(self._endpoints)

    def __repr__(self) -> str:
        return str(endpoints_table(list(self.values())))

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return endpoints_table(list(self.values())).bundle()


HEADS = ("name", "state", "model", "policy", "waiting now", "answered", "latency p50")


def endpoints_table(endpoints: Sequence[Endpoint]) -> Table:
    """Return a table with the state and figures of each model."""

    def row(endpoint: Endpoint) -> tuple[object, ...]:
        stats = endpoint.stats()
        return (
            endpoint.name,
            stats.state,
            stats.model,
            stats.policy,
            stats.queue_depth,
            stats.outcomes["ok"],
            duration(stats.latency.p50),
        )

    return Table.of(f"answers and their latency {SINCE}", HEADS, endpoints, row)


def _check_spelling(model: Model, parameters: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for a misspelt ``timeout`` that is no parameter of the model."""
    known: Parameters | None = getattr(model, "_parameters", None)
    for name in parameters:
        if known is None or name in known.allowed:
            continue
        if get_close_matches(name.lower(), [*known.allowed, "timeout"], 1) == ["timeout"]:
            raise InvalidInput(f"`predict` has no option `{name}`; did you mean `timeout`?")


def _wait(future: Future[Answer]) -> Answer:
    # If an interrupt comes just before a wait begins, Python raises it only after the wait.
    while not future.done():
        with contextlib.suppress(FutureTimeout):
            return future.result(INTERRUPT_POLL)
    return future.result()
