"""One model of a server: asking it, looking at its queue, steering it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .display import Table, duration
from .engine.engine import Engine
from .engine.registry import FIRST, EngineRegistry
from .engine.requests import Answer
from .engine.text_stream import BlockingStream, Stream, Writing, check_writes
from .errors import InvalidInput, NotReady, OptionError
from .extras import require
from .models.base import Model, ServedModel
from .models.parameters import STOP, Parameters
from .queueing.cost_model import CostModel
from .queueing.policies import Policy, PolicyLike, label
from .queueing.policy_kinds import as_policy
from .queueing.record_log import Batches, Errors, Requests
from .queueing.stats import SINCE, Queue, Stats
from .records import PolicyChange
from .simulation.overheads import with_overheads
from .simulation.replay import RECORDED, replay
from .simulation.report import Report
from .simulation.simulator import simulate
from .validation.checks import check_seconds
from .validation.fixed_attributes import FixedAttributes
from .validation.option_hints import check_further
from .validation.tracebacks import entry_point

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .dashboard.widget import Dashboard

#: seconds after which who waits in `predict` looks up, to see an interrupt
LOOK_UP = 0.5
#: of `stream`, besides what the pipeline takes
STREAMING = Parameters("stream", {"stop": STOP})


class Endpoint(FixedAttributes):
    """A model with a queue, a worker and a policy of its own, at ``/models/{name}`` of a server.

    ``server.add(name, model)`` makes one and ``server[name]`` gives it.
    """

    def __init__(self, engine: Engine, engines: EngineRegistry, base: Callable[[], str]) -> None:
        self._engine = engine
        self._engines = engines
        self._base = base

    @property
    def name(self) -> str:
        """What it is called among the models of its server."""
        return self._engine.name

    @property
    def url(self) -> str:
        """Where it answers, such as ``http://127.0.0.1:8000/models/default``."""
        # A server's own name need not fit into a path.
        first = self._engine is self._engines.first
        return f"{self._base()}/models/{FIRST if first else self.name}"

    @property
    def state(self) -> str:
        """``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``."""
        return self._engine.state

    @property
    def model(self) -> ServedModel:
        """What is served: its task, whether it is batched and why, what it accepts.

        Raises `NotReady` before it is loaded.
        """
        if self._engine.model is None:
            raise NotReady("the model is not loaded yet; wait_ready() waits for it")
        return ServedModel.of(self._engine.model)

    @entry_point
    def wait_ready(self, timeout: float | None = None, progress: bool | None = None) -> None:
        """Wait until the model is loaded, at most `timeout` seconds.

        `progress` shows a bar, which needs tqdm; by itself, where a person sees it and the wait is
        longer than a second. Raises `LoaderFailed`, with what the loader raised as its cause, or
        `NotReady`.
        """
        check_seconds("timeout", timeout, zero=True, endless=True, none=True)
        self._engine.wait_ready(timeout, progress)

    # -- asking -------------------------------------------------------------------------

    @entry_point
    def predict(self, inputs: Any, *, timeout: float | None = None, **parameters: Any) -> Any:
        """Ask through the same queue, without HTTP; returns what ``pipe(inputs)`` would.

        A list is as many entries of the queue, as over HTTP, and gives a list of what ``pipe(x)``
        returns for each ``x``. `timeout` (seconds) can shorten the server's. Raises a `ServeError`.
        """
        if self._engine.on_own_thread():
            raise OptionError("the model must not wait for its own queue: that would never end")
        with self._span():
            futures, many = self._submit(inputs, parameters, timeout)
            try:
                values = [_wait(future).value for future in futures]
            finally:
                for future in futures:
                    future.cancel()  # if the cell was interrupted, or an item has failed
        self._engine.answer_sent()
        return values if many else values[0]

    @entry_point
    async def apredict(
        self, inputs: Any, *, timeout: float | None = None, **parameters: Any
    ) -> Any:
        """The same as `predict`, to be awaited; a cancelled one leaves the queue."""
        with self._span():
            futures, many = self._submit(inputs, parameters, timeout)
            try:
                answers = await asyncio.gather(*map(asyncio.wrap_future, futures))
            finally:
                for future in futures:
                    future.cancel()
        self._engine.answer_sent()
        values = [answer.value for answer in answers]
        return values if many else values[0]

    def _submit(
        self, inputs: Any, parameters: Mapping[str, Any], timeout: float | None
    ) -> tuple[list[Future[Answer]], bool]:
        check_seconds("timeout", timeout, none=True)
        self._check_served()
        self._engine.check_open("predict", timeout)
        model = self._engine.model
        assert model is not None  # it was open
        _check_timeout_is_meant(model, parameters)
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
        """Yield the text that the model writes to a prompt, piece by piece, as it is written.

        ``for text in server.stream("Once", max_new_tokens=50): print(text, end="")``. The pieces
        joined are the text that `predict` returns with ``return_full_text=False``. The prompt is a
        text, or a chat: a list of messages, each a dict with ``role`` and ``content``.

        The request enters the queue when the first piece is asked for, and runs alone. A ``break``,
        an interrupt of the cell, or `close` withdraws it: the model stops at the next token.

        Args:
            inputs: One prompt.
            stop: Texts to stop at, at most 16. They are not part of what is yielded.
            timeout: Seconds for the whole text; can shorten the server's.
            parameters: Those of the pipeline, such as ``max_new_tokens`` and ``temperature``.

        Raises:
            OptionError: The model is no pipeline for text generation, or an option makes no sense.
            ServeError: As `predict` does. What goes wrong in the middle is raised in the middle.
        """
        if self._engine.on_own_thread():
            raise OptionError("the model must not wait for its own queue: that would never end")
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
        """The same as `stream`, for ``async for``; other tasks of the loop go on meanwhile.

        ``async for text in server.astream("Once"): print(text, end="")``. To cancel the task that
        reads it withdraws the request.
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
        """Return the texts to stop at; raises what is wrong with a call of `stream`."""
        check_seconds("timeout", timeout, none=True)
        self._check_served()
        self._engine.check_open("stream", timeout)
        model = self._engine.model
        assert model is not None  # it was open
        check_writes(model, OptionError)
        stops: Any = list(stop) if isinstance(stop, tuple) else stop
        STREAMING.check({"stop": stops} if stops else {})
        if model.split(inputs, parameters) is not None:
            raise InvalidInput("one prompt can be streamed at a time, not a list of them")
        for name in ("return_full_text", "return_tensors"):
            if parameters.get(name):
                raise InvalidInput(f"{name} is for `predict`; a stream has only the new text")
        return [stops] if isinstance(stops, str) else stops

    def _check_served(self) -> None:
        """Raise `OptionError` if the server has this model no more."""
        if self._engine not in self._engines.values():
            raise OptionError(
                f"the server has no model {self.name!r} any more: it was removed or replaced; "
                f"server.models lists those that it has"
            )

    @contextlib.contextmanager
    def _writing(
        self, writing: Writing, prompt: Any, parameters: Mapping[str, Any], timeout: float | None
    ) -> Iterator[None]:
        """Submit `writing`; at the end of the context, however that comes, it is withdrawn."""
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

    # -- looking and steering -----------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """The policy in effect; set another, and it decides from the next batch on."""
        return self._engine.policy

    @policy.setter
    @entry_point
    def policy(self, policy: PolicyLike) -> None:
        self._check_served()
        self._engine.policy = checked_policy(policy)

    def pause(self) -> None:
        """Let the queue fill without running it; the batch that runs ends as usual."""
        self._engine.pause(True)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._engine.pause(False)

    def stats(self) -> Stats:
        """Statistics as of now: a table in a cell, a frozen object in code.

        Each figure names its span of time: now, the last 10 s, or since the start.
        """
        return self._engine.stats()

    def records(self) -> Requests:
        """What became of each of the newest requests, oldest first."""
        return Requests(self._engine.records())

    def batches(self) -> Batches:
        """The newest batches that ran, oldest first."""
        return Batches(self._engine.batches())

    def errors(self) -> Errors:
        """The newest errors since the start, newest first: a list, and a table in a cell.

        Has the failures of the model and of the policy, not inputs that were rejected.
        """
        return Errors(self._engine.errors())

    def policy_changes(self) -> list[PolicyChange]:
        """The policies that took effect since the start, the oldest first."""
        return self._engine.policy_changes()

    def queue(self) -> Queue:
        """What waits now, oldest first."""
        return self._engine.queue()

    @entry_point
    def dashboard(self) -> Dashboard:
        """What happens just now, live in a cell, with controls; ``GET /`` is the same as a page.

        It comes through the kernel's own channel, so it works where the browser cannot reach the
        server, and moves while a cell runs. Raises `MissingExtra` without the extra ``notebook``.
        """
        require("anywidget", "notebook")
        from .dashboard.widget import Dashboard

        return Dashboard(self._engines, self.name)

    # -- reckoning ----------------------------------------------------------------------

    @property
    def limits(self) -> dict[str, Any]:
        """Whom it refuses and when it gives up, as options of `simulate`."""
        engine = self._engine
        return {
            "max_queue_size": engine.max_queue_size,
            "timeout": engine.timeout,
            "refuse_late": engine.refuse_late,
            "replicas": engine.workers,
        }

    @entry_point
    def fit_cost(self) -> CostModel:
        """Fit a cost model to the newest batches; it says its own error and warnings.

        The time between batches and for each request is measured too. What is reckoned with the
        model carries its warnings: `what_if`, `compare`, `capacity`, `plan`, and every figure.
        Raises `OptionError` before any batch ran.
        """
        batches = [batch for batch in self.batches() if not batch.retries]
        return with_overheads(CostModel.fit(batches), self.records(), batches)

    @entry_point
    def what_if(
        self, policy: PolicyLike, *, cost: CostModel | None = None, **options: Any
    ) -> Report:
        """The requests just served (the newest 10,000), simulated under another policy.

        They arrive when they did and are as long as they were, and batches take what `cost` says,
        which is `fit_cost` unless given. With the policy in effect it shows how far to trust that.
        `options` are those of `simulate`, such as ``replicas=2``; workers, queue limit, time-out
        and refusals are this model's unless given. The report's notes say what makes `cost`
        doubtful, and which policies served the requests, if there were several. Raises
        `OptionError` before anything was served.
        """
        check_further(Endpoint.what_if, simulate, options, RECORDED)
        known = self.fit_cost() if cost is None else cost
        settings = {**self.limits, **options}
        changes = self.policy_changes()
        return replay(self.records(), checked_policy(policy), known, changes=changes, **settings)

    # -- display ------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Endpoint {self.name!r}: {self.state}, {label(self.policy)}>"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return endpoints_table([self]).bundle()


class Endpoints(Mapping[str, Endpoint]):
    """The models of a server by their names: a mapping in code, a table in a cell."""

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
    """Each model and how it fares."""

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


def checked_policy(policy: PolicyLike) -> Policy:
    """Return the policy, of which its class or its text will do. Raises `OptionError`."""
    chosen: Policy = as_policy(policy)
    return chosen


def _check_timeout_is_meant(model: Model, parameters: Mapping[str, Any]) -> None:
    """Refuse a misspelt ``timeout``, which is not among what the model says it takes."""
    known: Parameters | None = getattr(model, "_parameters", None)
    for name in parameters:
        if known is None or name in known.allowed:
            continue
        if get_close_matches(name.lower(), [*known.allowed, "timeout"], 1) == ["timeout"]:
            raise InvalidInput(f"`predict` has no option `{name}`; did you mean `timeout`?")


def _wait(future: Future[Answer]) -> Answer:
    # Python does not see an interrupt that comes just before a wait begins until the wait ends.
    while not future.done():
        with contextlib.suppress(FutureTimeout):
            return future.result(LOOK_UP)
    return future.result()
