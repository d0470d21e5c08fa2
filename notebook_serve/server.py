"""`serve` and `Server`: models behind a web server in a notebook."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .clients import Clients
from .dashboard.server_card import server_card
from .display import Card
from .endpoint import INTERRUPT_POLL, Endpoint, Endpoints
from .engine.engine import Engine
from .engine.registry import FIRST, EngineRegistry
from .errors import OptionError
from .extras import require
from .http.options import HttpOptions
from .http.running_servers import RunningServers, interrupted_by_terminate
from .http.transport.sockets import listen
from .models.devices import check_loader
from .models.factory import as_model
from .models.pipeline_builder import choose_model
from .options import ModelOptions, split_options
from .progress import packing_bar
from .queueing.policies import PolicyLike, label
from .queueing.record_log import Errors
from .queueing.stats import Stats
from .validation.checks import check_flags, check_seconds, shown
from .validation.names import check_model_name, check_server_name
from .validation.tracebacks import entry_point
from .workers.placement import Kind

if TYPE_CHECKING:
    from httpx import AsyncClient, Client
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from opentelemetry.trace import TracerProvider
    from starlette.applications import Starlette

    from .http.transport.uvicorn_thread import UvicornThread

_running: RunningServers[Server] = RunningServers()
atexit.register(_running.stop_at_exit)


@entry_point
def serve(
    served: Any = None,
    /,
    *,
    model: Any = None,
    loader: Callable[[], Any] | None = None,
    policy: PolicyLike | None = None,
    worker: Kind = ModelOptions.worker,
    workers: int | None = None,
    devices: Sequence[str] | None = None,
    threads: int | None = None,
    overtime: float | None = None,
    host: str = HttpOptions.host,
    port: int | None = None,
    max_queue_size: int = ModelOptions.max_queue_size,
    refuse_late: bool = ModelOptions.refuse_late,
    timeout: float = ModelOptions.timeout,
    max_body_size: int = HttpOptions.max_body_size,
    token: str | None = None,
    expose_errors: bool | None = None,
    allow_hosts: Sequence[str] = (),
    allow_origins: Sequence[str] = (),
    name: str = FIRST,
    start: bool = True,
) -> Server:
    """Serve a model over HTTP, and return the server once it takes requests.

    Args:
        served: A transformers pipeline, a SentenceTransformer, or a callable that takes a list of
            inputs and returns as many outputs (`each` makes one of a function of one input). Or
            the name of a task, such as ``"fill-mask"``, with a `model`.
        model: The folder or the hub name of the model for the task. Without a task it is the same
            as `served`.
        loader: Instead of `model`: a callable without arguments that returns one. It runs in the
            worker, and again in each process that replaces one. Until it returns, requests are
            rejected with 503; `wait_ready` waits for it.
        policy: Decides which requests run next, and when: ``Greedy(8)`` for example. The default is
            ``CostAware()``.
        worker: ``thread`` or ``process``. A cell that runs pure Python holds the GIL and slows a
            worker thread; a process has its own GIL. A process that dies is replaced, whereas a
            crash in a thread ends the notebook's kernel. Processes need
            ``pip install 'notebook-serve[process]'``. A `loader` runs in the process. A `model` is
            sent to it when the server starts, and `serve` waits for that: the weights are then in
            memory twice, once for the notebook and once for all workers.
        workers: Number of workers that run batches from the one queue; torch's threads are divided
            among them. Threads share the weights of a pipeline. For anything else they need a
            `loader`, which makes one model for each.
        devices: Instead of `workers`: the device of each worker, such as ``["cuda:0", "cuda:1"]``.
            Pipelines are moved there; a loader with a parameter ``device`` receives it.
        threads: Number of torch's threads for each worker. By default a worker has its share of
            torch's threads, and uses fewer while trial batches are faster with fewer: beside
            another busy program, threads that wait for each other can make a forward pass 20 times
            as long. The card and the page then say so. A number that you set before
            (``OMP_NUM_THREADS``, `torch.set_num_threads`) is kept, and the threads of your cells
            never change. On a GPU it has little effect.
        overtime: Process workers only: kill a forward pass that runs longer than `overtime` times
            the time its requests had left, and replace the process. By default it runs on, as it
            always does on a thread, which cannot be killed. Its requests receive 504 on time in
            either case.
        host: Address to listen on. One that other machines can reach needs a `token`.
        port: Port to listen on. By default 8000, or any free port if 8000 is taken.
        max_queue_size: Most requests in the queue; further ones are rejected with 503.
        refuse_late: True rejects a request immediately, with 503, if the estimated wait exceeds its
            timeout. False lets it wait, and it receives 504.
        timeout: Seconds until a request is answered with 504, in the queue or running.
        max_body_size: Most bytes of a request's body; a larger one is rejected with 413.
        token: Secret that clients send as ``Authorization: Bearer TOKEN``.
        expose_errors: True sends the messages of the model's exceptions to clients. By default True
            on loopback, False elsewhere.
        allow_hosts: Host names of this server in addition to ``localhost`` and `host`. Without a
            token, requests to other names are rejected with 403.
        allow_origins: Origins of pages that may use the server, such as ``https://example.org``.
        name: Name of the server. A new server of the same name replaces the old one, which is
            stopped, so re-running a cell leaves one server.
        start: False to start later, or to run ``server.app`` in your own ASGI server.

    Raises:
        OptionError: An option is invalid.
        PortTaken: The requested port is in use.
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


class Server(Endpoint):
    """A web server with one or more models; `serve` makes one and documents the options.

    It is the endpoint of its first model: `predict`, `policy`, `queue` and so on refer to that one.
    `add` adds models, and ``server[name]`` returns the endpoint of each. `start`, `stop`, `pause`,
    `resume`, `wait_ready`, `state`, `stats`, `errors` and the dashboard cover all models.
    """

    _calls = dict.fromkeys(Endpoint._calls, "serve(...")

    @entry_point
    def __init__(
        self,
        model: Any = None,
        *,
        loader: Callable[[], Any] | None = None,
        name: str = FIRST,
        **options: Any,
    ) -> None:
        check_server_name(name)
        self._options, self._http = split_options("Server", options)
        engine = _make_engine(model, loader, self._options, name)
        super().__init__(engine, EngineRegistry(engine), lambda: self.url)
        self._app: Starlette | None = None
        self._listener: UvicornThread | None = None
        self._address: tuple[str, int] | None = None
        self._changing = threading.RLock()
        self._stopped = threading.Event()

    # -- life cycle ---------------------------------------------------------------------

    @entry_point
    def start(self) -> Server:
        """Listen, and start the workers; do nothing if the server runs.

        Another server of the same name is stopped first. Raises `PortTaken` or another
        `StartError`.
        """
        with self._changing:
            if self._answers():
                self._engines.start()  # replaces a worker that died
                return self
            _running.stop_namesake(self)
            self._listen()
            _running.add(self)
        return self

    def _listen(self) -> None:
        from .http.transport.uvicorn_thread import UvicornThread

        sock = listen(self._http.host, self._http.port)
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
        self._stopped.clear()

    @entry_point
    def stop(self, drain: bool = True, timeout: float = 10.0) -> None:
        """Reject new requests, answer those in the queue, and free the port.

        Does nothing if the server is stopped.

        Args:
            drain: False rejects the requests in the queue instead of answering them.
            timeout: Most seconds for draining; requests still open then are rejected with 503.
        """
        _check_stop(drain, timeout)
        with self._changing:
            try:
                self._engines.stop(drain, timeout)
            finally:
                if self._listener is not None:
                    self._listener.stop(drain)
                self._listener = None
                _running.remove(self)
                self._stopped.set()

    @entry_point
    def wait(self) -> None:
        """Wait until the server stops: the last line of a script that only serves.

        Returns after `stop` in another thread. Ctrl+C and, in the main thread, SIGTERM stop the
        server as `stop` does. A second Ctrl+C raises `KeyboardInterrupt`. Raises `OptionError` if
        the server was never started.
        """
        if self._address is None:
            raise OptionError("wait() needs a server that was started; call start() first")
        try:
            with interrupted_by_terminate():
                # If an interrupt comes just before a wait begins, Python raises it only after it.
                while not self._stopped.wait(INTERRUPT_POLL):
                    pass
        except KeyboardInterrupt:
            self.stop()

    @entry_point
    def wait_ready(self, timeout: float | None = None, progress: bool | None = None) -> None:
        """Wait until every model is loaded, at most `timeout` seconds in all.

        `progress` shows a bar, which needs tqdm; None shows one in a terminal or notebook if the
        wait takes longer than a second. Raises `NotReady` after `timeout`, and `LoaderFailed` with
        the exception of the loader as its cause.
        """
        check_seconds("timeout", timeout, zero=True, endless=True, none=True)
        end = None if timeout is None else time.monotonic() + timeout
        for engine in self._engines.values():
            left = None if end is None else max(0.0, end - time.monotonic())
            engine.wait_ready(left, progress)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    async def __aenter__(self) -> Server:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.stop)

    # -- models -------------------------------------------------------------------------

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
        worker: Kind = ModelOptions.worker,
        workers: int | None = None,
        devices: Sequence[str] | None = None,
        threads: int | None = None,
        overtime: float | None = None,
    ) -> Endpoint:
        """Serve another model at ``/models/{name}``, with its own queue and workers.

        It starts and stops with the server. It replaces a model of the same name, so a cell can be
        re-run: new requests go to the new model, and the old one answers those it has accepted.

        `name` has letters, digits, dots, dashes and underscores. The options are those of `serve`;
        by default `max_queue_size`, `refuse_late` and `timeout` are the server's.

        Raises:
            OptionError: An option is invalid, or `name` is the name of the first model.
        """
        check_model_name(name)
        if name in (FIRST, self.name):
            raise OptionError(f"{name!r} is the model that the server was made with")
        try:
            given, loader = choose_model(served, model, loader, worker)
        except OptionError as error:  # its hint is a call of `serve`
            hint = error.message.replace("serve(", f"server.add({name!r}, ")
            raise OptionError(hint) from None
        own = self._options
        options = ModelOptions(
            policy=policy,
            worker=worker,
            workers=workers,
            devices=devices,
            threads=threads,
            overtime=overtime,
            max_queue_size=own.max_queue_size if max_queue_size is None else max_queue_size,
            refuse_late=own.refuse_late if refuse_late is None else refuse_late,
            timeout=own.timeout if timeout is None else timeout,
        )
        engine = _make_engine(given, loader, options, name)
        replaced = self._engines.add(engine)
        if replaced is not None:
            replaced.stop()
        return self._endpoint(engine)

    @entry_point
    def remove(self, name: str, drain: bool = True, timeout: float = 10.0) -> None:
        """Stop serving the model `name`; `drain` and `timeout` are those of `stop`.

        Raises `NoSuchModel`, and `OptionError` for the first model.
        """
        _check_stop(drain, timeout)
        if self._engines[name] is self._engine:
            raise OptionError(f"{name!r} is the model that the server was made with; see stop()")
        self._engines.remove(name).stop(drain, timeout)

    @entry_point
    def __getitem__(self, name: str) -> Endpoint:
        """Return the model of this name; ``default`` is the first. Raises `NoSuchModel`."""
        return self._endpoint(self._engines[name])

    #: without this, Python would take a class with `__getitem__` for a sequence
    __iter__ = None

    @property
    def models(self) -> Endpoints:
        """All models by name, the first one first: a mapping, and a table in a cell."""
        return Endpoints({name: self._endpoint(each) for name, each in self._engines.items()})

    def _endpoint(self, engine: Engine) -> Endpoint:
        return Endpoint(engine, self._engines, lambda: self.url)

    # -- clients ------------------------------------------------------------------------

    @entry_point
    def client(self, name: str = FIRST, **options: Any) -> InferenceClient:
        """Return a Hugging Face `InferenceClient` for the model `name`, with token and timeout.

        ``server.client().fill_mask("a [MASK]")`` sends an HTTP request. `options` are those of the
        client. If ``HF_HUB_OFFLINE`` is set, that client refuses every request, including those to
        this machine; use `httpx` then.
        """
        self._engines[name]  # raises `NoSuchModel`
        return self._clients.hub(name, options)

    @entry_point
    def aclient(self, name: str = FIRST, **options: Any) -> AsyncInferenceClient:
        """Return the same as `client`, with methods for ``await``."""
        self._engines[name]  # raises `NoSuchModel`
        return self._clients.async_hub(name, options)

    @entry_point
    def httpx(self, **options: Any) -> Client:
        """Return an `httpx.Client` for this server; paths are relative to its address.

        ``with server.httpx() as client: client.post("/", content="a [MASK]")``. It has the token
        and the timeout of the server, and uses no proxy. `options` are those of httpx.
        """
        return self._clients.httpx(options)

    @entry_point
    def ahttpx(self, **options: Any) -> AsyncClient:
        """Return the same as `httpx`, for ``await``."""
        return self._clients.async_httpx(options)

    @property
    def _clients(self) -> Clients:
        return Clients(self.url, self._http.token, self._options.timeout)

    # -- state and control --------------------------------------------------------------

    @property
    def app(self) -> Starlette:
        """ASGI application; with ``start=False``, any ASGI server can run it."""
        if self._app is None:
            from .http.app import create_app

            self._app = create_app(self._engines, self._http)
        return self._app

    @property
    def url(self) -> str:
        """Address of the server, such as ``http://127.0.0.1:8000``."""
        if self._address is None:
            raise OptionError("the server has no address before it is started; call start()")
        host, port = self._address
        # A server that listens on all addresses is reached on loopback from here.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def state(self) -> str:
        """One of ``new, loading, ready, failing, paused, stopping, stopped, failed, dead``.

        A model is ``failing`` if its newest 3 requests failed, or all of them if fewer ran; `stats`
        and `errors` have the error. With several models it is the state of the one that needs most
        attention.
        """
        return self._engines.state

    def pause(self) -> None:
        """Stop dispatching batches of all models; requests still enter the queues."""
        for engine in self._engines.values():
            engine.pause(True)

    def resume(self) -> None:
        """Dispatch batches of all models again, after `pause`."""
        for engine in self._engines.values():
            engine.pause(False)

    def stats(self) -> Stats:
        """Return the present statistics: a table in a cell, a frozen object in code.

        Each figure names its span of time: now, the last 10 s, or since the start. With several
        models they are the aggregate, and ``models`` has those of each.
        """
        return self._engines.stats()

    def errors(self) -> Errors:
        """Return the newest errors of all models, newest first: a list, a table in a cell.

        They are failures of models and policies; rejected inputs are not among them.
        """
        return self._engines.errors()

    @entry_point
    def trace(self, provider: TracerProvider | None = None) -> None:
        """Create OpenTelemetry spans from now on: one for each request and for each batch.

        Each batch is linked to its requests, and each request to its batch. They go to `provider`,
        by default the one of this process (``opentelemetry.trace.set_tracer_provider``). A request
        over HTTP continues the trace of its ``traceparent`` header. Raises `MissingExtra` without
        the extra ``tracing``.
        """
        require("opentelemetry.trace", "tracing")
        from .http.telemetry.tracing import Tracing

        if provider is not None and not hasattr(provider, "get_tracer"):
            raise OptionError(
                f"provider must be a TracerProvider of OpenTelemetry, got {provider!r}; "
                "leave it out for the one of this process"
            )
        self._engines.trace(Tracing(provider))

    # -- display ------------------------------------------------------------------------

    def __repr__(self) -> str:
        where = f" at {self.url}" if self._answers() else ""
        several = len(self._engines) > 1
        models = f"{len(self._engines)} models" if several else label(self.policy)
        return f"<Server {self.name!r}: {self.state}{where}, {models}>"

    def _repr_html_(self) -> str:
        return self._card().markup()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return self._card().bundle()

    def _answers(self) -> bool:
        return self._listener is not None and self._listener.is_alive()

    def _card(self) -> Card:
        url = self.url if self._answers() else ""
        settings = [*self._options.rows(), *self._http.rows()]
        return server_card(self.name, url, self.stats(), settings)


def _make_engine(
    model: Any, loader: Callable[..., Any] | None, options: ModelOptions, name: str
) -> Engine:
    """Return the engine of a model or a loader; raise `OptionError` for one that cannot run."""
    if (model is None) == (loader is None):
        raise OptionError("give a model, or a loader that returns one (and not both)")
    placement = options.placement
    if loader is not None:
        if not callable(loader):
            raise OptionError(f"loader must be a callable without arguments, got {shown(loader)}")
        check_loader(loader, with_device=any(placement.devices))
    made = None if model is None else as_model(model)
    return Engine(
        made,
        options.initial_policy,
        placement.executors(model, loader, made, name, packing_bar()),
        overtime=options.overtime_factor,
        max_queue_size=options.max_queue_size,
        refuse_late=options.refuse_late,
        timeout=options.timeout,
        name=name,
    )


def _signature() -> inspect.Signature:
    """Return the signature of `Server` for Shift-Tab: the options of `serve`, but `start`."""
    options = [
        item for item in inspect.signature(serve).parameters.values() if item.name != "start"
    ]
    (model,) = (item for item in options if item.name == "model")
    others = [item for item in options[1:] if item is not model]
    return inspect.Signature([model.replace(kind=model.POSITIONAL_OR_KEYWORD), *others])


Server.__signature__ = _signature()  # type: ignore[attr-defined]


def _check_stop(drain: Any, timeout: Any) -> None:
    check_flags(drain=drain)
    check_seconds("timeout", timeout, zero=True)


def servers() -> list[Server]:
    """Return the running servers of this process."""
    return list(_running)


@entry_point
def stop_all(drain: bool = True, timeout: float = 10.0) -> None:
    """Stop every server of this process."""
    _check_stop(drain, timeout)
    for server in _running:
        server.stop(drain, timeout)
