"""`serve` and `Server`: what a person holds in a notebook."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import math
import re
import signal
import threading
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from numbers import Real
from typing import TYPE_CHECKING, Any

from .clients import Clients
from .display import Card, Table, duration
from .endpoint import Endpoint, Endpoints, checked_policy
from .engine.engine import Engine
from .engine.registry import FIRST, EngineRegistry
from .errors import OptionError
from .extras import require
from .http.transport.sockets import is_loopback, listen
from .models.base import ServedModel
from .models.devices import check_loader
from .models.factory import as_model
from .models.pipeline_builder import choose_model
from .progress import packing_bar
from .queueing.cost_model import CostModel
from .queueing.learned_policies import CostAware
from .queueing.policies import Policy, PolicyLike, label
from .queueing.record_log import Batches, Errors, Requests
from .queueing.stats import (
    SINCE,
    LastError,
    Queue,
    Row,
    Stats,
    counts_in_words,
    queue_rows,
    rate_rows,
    span_of_times,
)
from .records import PolicyChange
from .simulation.report import Report
from .validation.checks import (
    check_flags,
    check_host,
    check_seconds,
    check_token,
    checked_hosts,
    checked_origins,
    checked_whole,
    shown,
)
from .validation.fixed_attributes import FixedAttributes
from .validation.option_hints import short
from .validation.tracebacks import entry_point
from .workers.placement import Kind, Placement

if TYPE_CHECKING:
    from httpx import AsyncClient, Client
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from opentelemetry.trace import TracerProvider
    from starlette.applications import Starlette

    from .dashboard.widget import Dashboard
    from .http.transport.uvicorn_thread import UvicornThread

#: seconds that what is under way has when the interpreter ends; Jupyter kills a kernel after 2.5
AT_EXIT = 1.0
#: seconds after which a thread that waits for the end looks up, to see an interrupt
LOOK_UP = 0.5
#: what a model may be called: it stands in a path
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: letters of a server's name
LONGEST_NAME = 100

_running: dict[str, Server] = {}
_running_lock = threading.Lock()


@entry_point
def serve(
    served: Any = None,
    /,
    *,
    model: Any = None,
    loader: Callable[[], Any] | None = None,
    policy: PolicyLike | None = None,
    worker: Kind = "thread",
    workers: int | None = None,
    devices: Sequence[str] | None = None,
    threads: int | None = None,
    overtime: float | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    max_queue_size: int = 1000,
    refuse_late: bool = True,
    timeout: float = 30.0,
    max_body_size: int = 10_000_000,
    token: str | None = None,
    expose_errors: bool | None = None,
    allow_hosts: Sequence[str] = (),
    allow_origins: Sequence[str] = (),
    name: str = "default",
    start: bool = True,
) -> Server:
    """Put a web server around a model; returns once it answers.

    Args:
        served: A transformers pipeline, a SentenceTransformer, or any callable that takes a list of
            inputs and returns a list of as many outputs (`each` makes one of a function of one
            input). Or the name of a task, such as ``"fill-mask"``, with a `model`.
        model: The folder or the name on the hub of the model for the task. Without a task it is the
            same as `served`.
        loader: Instead of `model`: a callable of no arguments that returns one. It runs once, in
            the worker (and again in each process that replaces one); until it is done requests are
            refused with 503, and `wait_ready` waits for it.
        policy: Which requests run next, and when, such as ``Greedy(8)``; ``CostAware()`` if not
            given.
        worker: Where the model runs: on a ``thread`` of this process, or in a ``process`` of its
            own. A cell that computes in pure Python takes the interpreter from a thread; a process
            has its own, and is replaced when it dies, while a thread takes the notebook with it.
            A process needs ``pip install 'notebook-serve[process]'``. A `loader` makes the model
            there. A `model` is sent there when the server starts, which waits for it: its weights
            are then in memory twice, once for you and once for all workers.
        workers: How many of them run batches from the one queue, each when it is idle; torch's
            threads are divided among them. Threads share the weights of a pipeline, and need a
            `loader` for anything else: it makes each its own.
        devices: Instead of `workers`: the device of each, such as ``["cuda:0", "cuda:1"]``.
            Pipelines are moved there; a loader with a parameter ``device`` is told.
        threads: The number of torch's threads for each worker. If not given, a worker has its share
            of the threads that torch has, and runs on fewer while those are faster: beside another
            busy program, threads that wait for each other can make a forward pass 20 times as long.
            Then the card and the page say so. A few batches on trial find it out. A number that you
            chose before (``OMP_NUM_THREADS``, `torch.set_num_threads`) stays, and that of your
            cells is never changed. On a GPU it has little effect.
        overtime: With processes: a forward that takes so many times as long as its requests had
            left when it began is ended, and its process replaced. If not given it runs on, as it
            always does on a thread, which cannot be ended; its requests have their 504 on time
            either way.
        host: The address to listen on. One that others can reach needs a `token`.
        port: The port to listen on; if not given 8000, or any free one if that is taken.
        max_queue_size: How many requests may wait before more are refused with 503.
        refuse_late: Whether a request is refused with 503 at once where what waits already would
            take longer than it has time; False lets it wait for its 504.
        timeout: Seconds after which a request is answered with 504, waiting or running.
        max_body_size: Most bytes of a request's body; more are refused with 413.
        token: What clients must show as ``Authorization: Bearer TOKEN``.
        expose_errors: Whether clients read what exceptions of the model say. If not given: yes on
            loopback, no elsewhere.
        allow_hosts: Names that clients may call the server by, besides ``localhost`` and `host`;
            without a token, others are refused with 403.
        allow_origins: Pages, such as ``https://example.org``, whose scripts may ask the server.
        name: Servers are told apart by name. A new one takes the name over and the old one is
            stopped, so running a cell twice leaves one server.
        start: False to start later, or to hand ``server.app`` to a server of your own.

    Raises:
        OptionError: An option makes no sense.
        PortTaken: The port that was asked for is in use.
        StartError: The server could not start for another reason.
    """
    check_flags(start=start)
    given, loader = choose_model(served, model, loader, worker)
    server = Server(
        given,
        loader=loader,
        policy=policy,
        worker=worker,
        workers=workers,
        devices=devices,
        threads=threads,
        overtime=overtime,
        host=host,
        port=port,
        max_queue_size=max_queue_size,
        refuse_late=refuse_late,
        timeout=timeout,
        max_body_size=max_body_size,
        token=token,
        expose_errors=expose_errors,
        allow_hosts=allow_hosts,
        allow_origins=allow_origins,
        name=name,
    )
    if start:
        server.start()
    return server


class Server(FixedAttributes):
    """A model behind a queue and a web server; made by `serve`, which explains the options.

    It may have more models, which `add` adds; ``server[name]`` is one of them. Then `start`,
    `stop`, `pause`, `resume`, `state`, `stats` and the page are of all models, and whatever else
    asks a model or looks at its queue is of the first.
    """

    @entry_point
    def __init__(
        self,
        model: Any = None,
        *,
        loader: Callable[[], Any] | None = None,
        policy: PolicyLike | None = None,
        worker: Kind = "thread",
        workers: int | None = None,
        devices: Sequence[str] | None = None,
        threads: int | None = None,
        overtime: float | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        max_queue_size: int = 1000,
        refuse_late: bool = True,
        timeout: float = 30.0,
        max_body_size: int = 10_000_000,
        token: str | None = None,
        expose_errors: bool | None = None,
        allow_hosts: Sequence[str] = (),
        allow_origins: Sequence[str] = (),
        name: str = "default",
    ) -> None:
        _check_name(name)
        max_body_size = checked_whole("max_body_size", max_body_size, 1, 2**40)
        if port is not None:
            port = checked_whole("port", port, 0, 65535)
        check_token(token)
        check_flags(refuse_late=refuse_late)
        if expose_errors is not None:
            check_flags(expose_errors=expose_errors)
        check_host(host)
        if not is_loopback(host) and token is None:
            raise OptionError(
                f"{host} can be reached by others; give token='...', and clients send it as "
                "Authorization: Bearer ..."
            )
        self._name = name
        self._host, self._port = host, port
        self._token, self._max_body_size = token, max_body_size
        self._expose_errors = is_loopback(host) if expose_errors is None else expose_errors
        self._hosts = (host, *checked_hosts(allow_hosts))
        self._origins = checked_origins(allow_origins)
        placement = self._placement = _checked_placement(
            worker, workers, devices, threads, overtime
        )
        self._engine = _checked_engine(
            model,
            loader,
            policy,
            placement=placement,
            overtime=overtime,
            max_queue_size=max_queue_size,
            refuse_late=refuse_late,
            timeout=timeout,
            name=name,
        )
        self._engines = EngineRegistry(self._engine)
        self._first = self._endpoint(self._engine)
        self._app: Starlette | None = None
        self._listener: UvicornThread | None = None
        self._address: tuple[str, int] | None = None
        self._life = threading.RLock()
        self._ended = threading.Event()

    @property
    def name(self) -> str:
        """What it is called; a new server of the same name takes its place."""
        return self._name

    # -- life ---------------------------------------------------------------------------

    @entry_point
    def start(self) -> Server:
        """Listen and answer; returns at once if it does already.

        Stops another server of the same name first. Raises `PortTaken` or another `StartError`.
        """
        with self._life:
            if self._listener is not None and self._listener.is_alive():
                self._engines.start()  # after a worker's death there is one to be made
                return self
            with _running_lock:
                before = _running.get(self.name)
            if before is not None and before is not self:
                before.stop()
            self._listen()
            with _running_lock:
                _running[self.name] = self
        return self

    def _listen(self) -> None:
        from .http.transport.uvicorn_thread import UvicornThread

        sock = listen(self._host, self._port)
        try:
            self._engines.start()
            address = sock.getsockname()
            listener = UvicornThread(self.app, sock, f"notebook-serve {self.name} http")
            listener.start()
        except BaseException:
            sock.close()
            self._engines.stop(drain=False)
            raise
        self._address = (address[0], address[1])
        self._listener = listener
        self._ended.clear()

    @entry_point
    def stop(self, drain: bool = True, timeout: float = 10.0) -> None:
        """Refuse new requests, answer those that wait, and free the port; does nothing if stopped.

        Args:
            drain: False refuses what waits instead of answering it.
            timeout: Seconds that draining may take; what is left then is refused with 503.
        """
        _check_end(drain, timeout)
        with self._life:
            try:
                self._engines.stop(drain, timeout)
            finally:
                if self._listener is not None:
                    self._listener.stop(drain)
                self._listener = None
                with _running_lock:
                    if _running.get(self.name) is self:
                        del _running[self.name]
                self._ended.set()

    @entry_point
    def wait(self) -> None:
        """Wait until the server stops: the last line of a script that only serves.

        Another thread's `stop` ends it. So do Ctrl+C and, in the main thread, a terminate
        (SIGTERM): they stop the server as `stop` does, and it returns when that is done. A second
        Ctrl+C raises `KeyboardInterrupt`. Raises `OptionError` if the server was never started.
        """
        if self._address is None:
            raise OptionError("there is nothing to wait for before start(); call it first")
        try:
            with _interrupted_by_terminate():
                # Python does not see an interrupt that comes just before a wait begins.
                while not self._ended.wait(LOOK_UP):
                    pass
        except KeyboardInterrupt:
            self.stop()

    @entry_point
    def wait_ready(self, timeout: float | None = None, progress: bool | None = None) -> None:
        """Wait until the model is loaded, at most `timeout` seconds; of several models, every one.

        `progress` shows a bar, which needs tqdm; by itself, where a person sees it and the wait is
        longer than a second. Raises `LoaderFailed`, with what the loader raised as its cause, or
        `NotReady`.
        """
        check_seconds("timeout", timeout, zero=True, endless=True, none=True)
        left, give_up = timeout, time.monotonic() + (timeout or 0.0)
        for engine in self._engines.values():
            engine.wait_ready(left, progress)
            left = None if timeout is None else max(0.0, give_up - time.monotonic())

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    async def __aenter__(self) -> Server:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.stop)

    # -- several models -----------------------------------------------------------------

    @entry_point
    def add(
        self,
        name: str,
        served: Any = None,
        *,
        model: Any = None,
        loader: Callable[[], Any] | None = None,
        policy: PolicyLike | None = None,
        max_queue_size: int | None = None,
        refuse_late: bool | None = None,
        timeout: float | None = None,
        worker: Kind = "thread",
        workers: int | None = None,
        devices: Sequence[str] | None = None,
        threads: int | None = None,
        overtime: float | None = None,
    ) -> Endpoint:
        """Serve another model at ``/models/{name}``, with a queue and workers of its own.

        A new one takes the name over: requests go to it from now on, and the old one answers what
        it had accepted and ends. So a cell may be run twice. It starts and stops with the server.

        Args:
            name: Letters, digits, dots, dashes and underscores.
            served: A pipeline, a batch function or a task, as for `serve`.
            model: The model of a task, as for `serve`.
            loader: Instead of `model`: a callable of no arguments that returns one.
            policy: Which of its requests run next; ``CostAware()`` if not given.
            max_queue_size: How many of its requests may wait; the server's if not given.
            refuse_late: Whether who would be late is refused; as the server does if not given.
            timeout: Seconds that its requests may take; the server's if not given.
            worker: Whether it runs on a ``thread`` or in a ``process``, as for `serve`.
            workers: How many of its batches may run at once, as for `serve`.
            devices: Where its workers are, as for `serve`.
            threads: The number of torch's threads for each worker, as for `serve`.
            overtime: When a forward in a process is ended, as for `serve`.

        Raises:
            OptionError: An option makes no sense, or `name` is the first model's.
        """
        _check_model_name(name)
        if name in (FIRST, self.name):
            raise OptionError(f"{name!r} is the model that the server was made with")
        own = self._engine
        try:
            given, loader = choose_model(served, model, loader, worker)
        except OptionError as error:  # its advice is for `serve`
            advice = error.message.replace("serve(", f"server.add({name!r}, ")
            raise OptionError(advice) from None
        engine = _checked_engine(
            given,
            loader,
            policy,
            placement=_checked_placement(worker, workers, devices, threads, overtime),
            overtime=overtime,
            max_queue_size=own.max_queue_size if max_queue_size is None else max_queue_size,
            refuse_late=own.refuse_late if refuse_late is None else refuse_late,
            timeout=own.timeout if timeout is None else timeout,
            name=name,
        )
        replaced = self._engines.add(engine)
        if replaced is not None:
            replaced.stop()
        return self._endpoint(engine)

    @entry_point
    def remove(self, name: str, drain: bool = True, timeout: float = 10.0) -> None:
        """Serve the model `name` no more; what it had accepted is answered as by `stop`.

        Raises `NoSuchModel`, and `OptionError` for the model that the server was made with.
        """
        _check_end(drain, timeout)
        if self._engines[name] is self._engine:
            raise OptionError(f"{name!r} is the model that the server was made with; see stop()")
        self._engines.remove(name).stop(drain, timeout)

    @entry_point
    def __getitem__(self, name: str) -> Endpoint:
        """The model of this name; the first one is ``default`` as well. Raises `NoSuchModel`."""
        return self._endpoint(self._engines[name])

    #: it is no sequence, as Python would think of what can be indexed
    __iter__ = None

    @property
    def models(self) -> Endpoints:
        """All models by their names, the first one first: a mapping, and a table in a cell."""
        return Endpoints({name: self._endpoint(each) for name, each in self._engines.items()})

    def _endpoint(self, engine: Engine) -> Endpoint:
        return Endpoint(engine, self._engines, lambda: self.url)

    # -- asking -------------------------------------------------------------------------

    @entry_point
    def predict(self, inputs: Any, *, timeout: float | None = None, **parameters: Any) -> Any:
        """Ask through the same queue, without HTTP; returns what ``pipe(inputs)`` would.

        A list is as many entries of the queue, as over HTTP, and gives a list of what ``pipe(x)``
        returns for each ``x``. `timeout` (seconds) can shorten the server's. Raises a `ServeError`.
        """
        return self._first.predict(inputs, timeout=timeout, **parameters)

    @entry_point
    async def apredict(
        self, inputs: Any, *, timeout: float | None = None, **parameters: Any
    ) -> Any:
        """The same as `predict`, to be awaited; a cancelled one leaves the queue."""
        return await self._first.apredict(inputs, timeout=timeout, **parameters)

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
        text, or a chat: a list of messages, each a dict with ``role`` and ``content``. A ``break``
        or an interrupt of the cell withdraws the request: the model stops at the next token.

        Args:
            inputs: One prompt.
            stop: Texts to stop at, at most 16. They are not part of what is yielded.
            timeout: Seconds for the whole text; can shorten the server's.
            parameters: Those of the pipeline, such as ``max_new_tokens`` and ``temperature``.

        Raises:
            OptionError: The model is no pipeline for text generation, or an option makes no sense.
            ServeError: As `predict` does. What goes wrong in the middle is raised in the middle.
        """
        return self._first.stream(inputs, stop=stop, timeout=timeout, **parameters)

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
        return self._first.astream(inputs, stop=stop, timeout=timeout, **parameters)

    # -- clients ------------------------------------------------------------------------

    @entry_point
    def client(self, name: str = "default", **options: Any) -> InferenceClient:
        """A Hugging Face `InferenceClient` for the model `name`, token and time-out included.

        ``server.client().fill_mask("a [MASK]")`` asks over HTTP. `options` are the client's own.
        Where ``HF_HUB_OFFLINE`` is set, that client refuses every address; use `httpx` then.
        """
        self._engines[name]  # raises where there is none
        return self._clients.hub(name, options)

    @entry_point
    def aclient(self, name: str = "default", **options: Any) -> AsyncInferenceClient:
        """The same as `client`, with methods to be awaited."""
        self._engines[name]
        return self._clients.async_hub(name, options)

    @entry_point
    def httpx(self, **options: Any) -> Client:
        """An `httpx.Client` for this server: paths are below its address.

        ``with server.httpx() as client: client.post("/", content="a [MASK]")``. It has the server's
        token and time-out, and goes through no proxy. `options` are httpx's own.
        """
        return self._clients.httpx(options)

    @entry_point
    def ahttpx(self, **options: Any) -> AsyncClient:
        """The same as `httpx`, to be awaited."""
        return self._clients.async_httpx(options)

    @property
    def _clients(self) -> Clients:
        return Clients(self.url, self._token, self._engine.timeout)

    # -- looking and steering -----------------------------------------------------------

    @property
    def app(self) -> Starlette:
        """The ASGI application; with ``start=False``, any ASGI server can run it."""
        if self._app is None:
            from .http.app import HttpOptions, create_app

            options = HttpOptions(
                self._max_body_size, self._token, self._expose_errors, self._hosts, self._origins
            )
            self._app = create_app(self._engines, options)
        return self._app

    @property
    def url(self) -> str:
        """Where it answers, such as ``http://127.0.0.1:8000``."""
        if self._address is None:
            raise OptionError("the server has no address before it is started; call start()")
        host, port = self._address
        # What listens everywhere is reached from here by the loopback address.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def state(self) -> str:
        """``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``.

        A model is ``failing`` when its newest 3 requests failed, or all of them where fewer ran;
        `stats` and `errors` have the error. Of several models it is the state of the one that
        needs most attention.
        """
        return self._engines.state

    @property
    def model(self) -> ServedModel:
        """What is served: its task, whether it is batched and why, what it accepts.

        Raises `NotReady` before it is loaded.
        """
        return self._first.model

    @property
    def policy(self) -> Policy:
        """The policy in effect; set another, and it decides from the next batch on."""
        return self._first.policy

    @policy.setter
    @entry_point
    def policy(self, policy: PolicyLike) -> None:
        self._first.policy = policy

    def pause(self) -> None:
        """Let the queue fill without running it; the batch that runs ends as usual."""
        for engine in self._engines.values():
            engine.pause(True)

    def resume(self) -> None:
        """Go on after `pause`."""
        for engine in self._engines.values():
            engine.pause(False)

    def stats(self) -> Stats:
        """Statistics as of now: a table in a cell, a frozen object in code.

        Each figure names its span of time: now, the last 10 s, or since the start.

        Of several models they are of the whole, and have those of each as ``models``.
        """
        return self._engines.stats()

    def records(self) -> Requests:
        """What became of each of the newest requests, oldest first."""
        return self._first.records()

    def batches(self) -> Batches:
        """The newest batches that ran, oldest first."""
        return self._first.batches()

    def errors(self) -> Errors:
        """The newest errors since the start, newest first: a list, and a table in a cell.

        Has the failures of all models and policies, not inputs that were rejected.
        """
        return self._engines.errors()

    def policy_changes(self) -> list[PolicyChange]:
        """The policies that took effect since the start, the oldest first."""
        return self._first.policy_changes()

    def queue(self) -> Queue:
        """What waits now, oldest first."""
        return self._first.queue()

    @entry_point
    def trace(self, provider: TracerProvider | None = None) -> None:
        """Make OpenTelemetry spans from now on: one for each request and one for each batch.

        Each batch is linked to the requests in it, and each request to its batch. They go where
        `provider` sends them: that of this process (``opentelemetry.trace.set_tracer_provider``)
        if not given. A request over HTTP continues the trace that its ``traceparent`` names.
        Raises `MissingExtra` without the extra ``tracing``.
        """
        require("opentelemetry.trace", "tracing")
        from .http.telemetry.tracing import Tracing

        if provider is not None and not hasattr(provider, "get_tracer"):
            raise OptionError(
                f"provider must be a TracerProvider of OpenTelemetry, got {provider!r}; "
                "leave it out for that of this process"
            )
        self._engines.tracing = Tracing(provider)

    @entry_point
    def dashboard(self) -> Dashboard:
        """What happens just now, live in a cell, with controls; ``GET /`` is the same as a page.

        It comes through the kernel's own channel, so it works where the browser cannot reach the
        server, and moves while a cell runs. Of several models it shows one at a time. Raises
        `MissingExtra` without the extra ``notebook``.
        """
        return self._first.dashboard()

    # -- reckoning ----------------------------------------------------------------------

    @property
    def limits(self) -> dict[str, Any]:
        """Whom the server refuses and when it gives up, as options of `simulate`."""
        return self._first.limits

    @entry_point
    def fit_cost(self) -> CostModel:
        """What a batch costs, fitted to the newest that ran; says its own error and doubts.

        What the server takes besides, between batches and for each request, is measured too.

        Raises `OptionError` before any ran.
        """
        return self._first.fit_cost()

    @entry_point
    def what_if(
        self, policy: PolicyLike, *, cost: CostModel | None = None, **options: Any
    ) -> Report:
        """The requests just served (the newest 10,000), simulated under another policy.

        They arrive when they did and are as long as they were, and batches take what `cost` says,
        which is `fit_cost` unless given. With the server's own policy it shows how far to trust
        that. `options` are those of `simulate`, such as ``replicas=2``; workers, queue limit,
        time-out and refusals are this server's unless given. Raises `OptionError` before anything
        was served.
        """
        return self._first.what_if(policy, cost=cost, **options)

    # -- display ------------------------------------------------------------------------

    def __repr__(self) -> str:
        where = f" at {self.url}" if self._answers() else ""
        several = len(self._engines) > 1
        what = f"{len(self._engines)} models" if several else label(self.policy)
        return f"<Server {self.name!r}: {self.state}{where}, {what}>"

    def _repr_html_(self) -> str:
        return self._card().markup()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return self._card().bundle()

    def _answers(self) -> bool:
        return self._listener is not None and self._listener.is_alive()

    def _card(self) -> Card:
        stats = self.stats()
        errors = [_failing(stats, error) for error in stats.all_failing]
        return Card(
            self.name,
            stats.state,
            self.url if self._answers() else "",
            Table("", ("", "", ""), _figures(stats)),
            Table("", ("", ""), self._settings()),
            at=time.strftime("%H:%M:%S (%Y-%m-%d)"),
            errors=(*errors, stats.error) if stats.error else tuple(errors),
            warnings=stats.warnings,
        )

    def _settings(self) -> list[tuple[str, object]]:
        engine, endless = self._engine, self._engine.timeout == math.inf
        return [
            ("workers", str(self._placement)),
            ("queue limit", f"{engine.max_queue_size} requests"),
            ("time-out", "none" if endless else duration(engine.timeout)),
            ("late requests", "rejected at once" if engine.refuse_late else "may wait"),
            ("body limit", f"{self._max_body_size:,} bytes"),
            ("token", "none" if self._token is None else "needed; a browser opens /?token=..."),
            ("error details", "shown to clients" if self._expose_errors else "hidden from clients"),
        ]


def _figures(stats: Stats) -> list[Row]:
    """The figures of a card: name, span of time, and value."""
    rows: list[Row] = [
        ("model", "", stats.model),
        ("policy", "", stats.policy),
        *queue_rows(stats),
        *rate_rows(stats),
        ("requests", SINCE, counts_in_words(stats.outcomes)),
        ("latency p50", span_of_times(stats), duration(stats.latency.p50)),
    ]
    if stats.last_error and not stats.failing:
        rows.append(("last error", SINCE, str(stats.last_error)))
    return rows


def _failing(stats: Stats, error: LastError) -> str:
    """What is told of a model that is failing; of several models, which one."""
    return f"{error.model} · {error}. {error.next}" if stats.models else f"{error}. {error.next}"


@contextlib.contextmanager
def _interrupted_by_terminate() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt`, where it would end the process on the spot."""
    usual = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def servers() -> list[Server]:
    """The servers that run in this process."""
    with _running_lock:
        return list(_running.values())


@entry_point
def stop_all(drain: bool = True, timeout: float = 10.0) -> None:
    """Stop every server of this process."""
    _check_end(drain, timeout)
    for server in servers():
        server.stop(drain, timeout)


@atexit.register
def _stop_quietly() -> None:
    # Daemon threads that are still in a forward when the interpreter is torn down can crash it.
    # One that outlasts this all the same ends with the process: there is nothing to warn of.
    logging.getLogger("notebook_serve").setLevel(logging.ERROR)
    give_up = time.monotonic() + AT_EXIT
    for server in servers():
        server.stop(drain=False, timeout=max(0.0, give_up - time.monotonic()))


def _checked_engine(
    model: Any,
    loader: Callable[[], Any] | None,
    policy: PolicyLike | None,
    *,
    placement: Placement,
    overtime: float | None,
    max_queue_size: int,
    refuse_late: bool,
    timeout: float,
    name: str,
) -> Engine:
    """An engine; raises `OptionError` where one of its options makes no sense."""
    if (model is None) == (loader is None):
        raise OptionError("give a model, or a loader that returns one (and not both)")
    if loader is not None and not callable(loader):
        raise OptionError(f"loader is a callable of no arguments, not {shown(loader)}")
    if loader is not None:
        check_loader(loader, with_device=any(placement.devices))
    max_queue_size = checked_whole("max_queue_size", max_queue_size, 1, 10_000_000)
    check_seconds("timeout", timeout, endless=True)
    check_flags(refuse_late=refuse_late)
    made = None if model is None else as_model(model)
    return Engine(
        made,
        checked_policy(CostAware() if policy is None else policy),
        placement.executors(model, loader, made, name, packing_bar()),
        overtime=math.inf if overtime is None else float(overtime),
        max_queue_size=max_queue_size,
        refuse_late=refuse_late,
        timeout=float(timeout),
        name=name,
    )


def _check_end(drain: Any, timeout: Any) -> None:
    check_flags(drain=drain)
    check_seconds("timeout", timeout, zero=True)


def _check_name(name: Any) -> None:
    """Raise `OptionError` for a server's name that cannot stand in a path or a line of a log."""
    if not isinstance(name, str) or not name.strip():
        raise OptionError(f"name must be a text that is not empty, got {name!r}")
    wrong = [letter for letter in name if letter in "/\\?#%" or not letter.isprintable()]
    if wrong:
        raise OptionError(
            f"name must not have {wrong[0]!r} in it, because it is part of an address; got {name!r}"
        )
    if len(name) > LONGEST_NAME:
        raise OptionError(f"name must have at most {LONGEST_NAME} letters, got {len(name)}")


def _check_model_name(name: Any) -> None:
    if callable(name):
        raise OptionError(f"the name comes first; write server.add('more', {short(name)})")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise OptionError(
            f"a model's name is of letters, digits, dots, dashes and underscores, not {name!r}"
        )


def _checked_placement(
    worker: Kind,
    workers: int | None,
    devices: Sequence[str] | None,
    threads: int | None,
    overtime: float | None,
) -> Placement:
    placement = Placement.of(worker, workers, devices, threads)
    _check_overtime(overtime, placement)
    return placement


def _check_overtime(overtime: Any, placement: Placement) -> None:
    if overtime is None:
        return
    if placement.kind == "thread":
        raise OptionError("a thread cannot be ended; overtime goes with worker='process'")
    number = isinstance(overtime, Real) and not isinstance(overtime, bool)
    if not (number and 1 <= overtime < math.inf):
        raise OptionError(f"overtime is a factor from 1 up, not {overtime!r}")
