"""The command line: ``notebook-serve demo`` and ``notebook-serve run TASK``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

from . import __version__
from .display import Table, duration
from .errors import ServeError
from .parsing import parse_policy
from .pipeline_builder import build_pipeline
from .placement import Kind
from .policies import Greedy, LengthAware, NoBatching, Policy
from .server import Server, serve
from .stats import Distribution

QUESTION = "raise a [MASK] if the key is missing"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ServeError as error:
        print(f"notebook-serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="notebook-serve",
        description="Serve a transformers pipeline, and see what queueing and batching do to it.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="ask the model that ships, and compare three policies")
    demo.add_argument("--requests", type=int, default=300, help="in each burst (default: 300)")
    demo.add_argument("--clients", type=int, default=32, help="at once (default: 32)")
    demo.set_defaults(run=_demo)

    run = commands.add_parser("run", help="serve a task until interrupted")
    run.add_argument("task", help='a task such as fill-mask, or "demo" for the model that ships')
    run.add_argument("--model", help="a model's folder or its name on the hub")
    run.add_argument("--policy", type=_policy, help='such as "Greedy(8)" (default: CostAware())')
    run.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    run.add_argument("--port", type=int, help="default: 8000, or any free one")
    run.add_argument(
        "--worker",
        choices=get_args(Kind),
        default="thread",
        help="where the model runs (default: thread)",
    )
    run.add_argument("--token", help="what clients must show; needed where others can reach it")
    run.set_defaults(run=_run)
    return parser


def _policy(text: str) -> Policy:
    try:
        return parse_policy(text)
    except ServeError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# -- run ------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    server = serve(
        loader=partial(build_pipeline, options.task, options.model),
        policy=options.policy,
        host=options.host,
        port=options.port,
        token=options.token,
        worker=options.worker,
        name="command line",
    )
    with server:
        print(f"loading; will answer at {server.url}", flush=True)
        threading.Thread(target=_tell_when_ready, args=(server, stop), daemon=True).start()
        stop.wait()
        failed = server.state == "failed"
        if failed:
            print(f"notebook-serve: {server.stats().error}", file=sys.stderr)
    return int(failed)


def _tell_when_ready(server: Server, stop: threading.Event) -> None:
    try:
        server.wait_ready()
        print(f'ready: curl -X POST -d "your text" {server.url}   (Ctrl+C stops)', flush=True)
    except ServeError:
        stop.set()


# -- demo -----------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    print("Loading the model that ships with the package ...", flush=True)
    with serve(loader=_demo_model, name="demo") as server:
        server.wait_ready()
        print(server)
        _ask(server)
        rows = [
            _burst(server, policy, options) for policy in (NoBatching(), Greedy(), LengthAware())
        ]
    print(
        f"\n{options.requests} requests of 4 to 128 words from {options.clients} clients at once, "
        "one torch thread:\n"
    )
    columns = ("policy", "ok", "answers/s", "p50", "p95", "p99", "batch", "padding")
    print(Table("", columns, rows))
    print(
        "\nbatch: mean number of requests in one; padding: share of the tokens computed for nothing"
    )
    return 0 if all(row[1] == options.requests for row in rows) else 1


def _demo_model() -> Any:
    import torch

    from .demo import pipeline

    torch.set_num_threads(1)  # for the worker's thread, on which a loader runs; figures swing less
    return pipeline()


def _ask(server: Server) -> None:
    import httpx

    print(f'\n$ curl -X POST -d "{QUESTION}" {server.url}')
    answers = httpx.post(server.url, content=QUESTION).raise_for_status().json()
    print(
        Table(
            "",
            ("score", "token_str", "sequence"),
            [(answer["score"], answer["token_str"], answer["sequence"]) for answer in answers],
        )
    )


def _burst(server: Server, policy: Policy, options: argparse.Namespace) -> tuple[Any, ...]:
    """Send a burst of mixed lengths under `policy`; a row of the table."""
    from .demo import sentences

    server.policy = policy
    texts = sentences(options.requests, seed=1)
    seen = max((batch.id for batch in server.batches()), default=0)
    started = time.monotonic()
    good = asyncio.run(_post_all(server.url, texts, options.clients))
    seconds = time.monotonic() - started
    latency = Distribution.of(r.latency for r in server.records()[-len(texts) :])
    batches = [batch for batch in server.batches() if batch.id > seen]
    computed = sum(batch.padded_tokens for batch in batches)
    padding = 1 - sum(sum(batch.lengths) for batch in batches) / computed
    return (
        repr(policy),
        good,
        f"{good / seconds:.0f}",
        duration(latency.p50),
        duration(latency.p95),
        duration(latency.p99),
        f"{len(texts) / len(batches):.1f}",
        f"{padding:.0%}",
    )


async def _post_all(url: str, texts: Sequence[str], clients: int) -> int:
    """Post each text from one of `clients` connections; how many were answered."""
    import httpx

    left = iter(texts)

    async def work(client: httpx.AsyncClient) -> int:
        return sum([(await client.post(url, content=text)).status_code == 200 for text in left])

    async with httpx.AsyncClient(timeout=120) as client:
        return sum(await asyncio.gather(*(work(client) for _ in range(clients))))


if __name__ == "__main__":
    sys.exit(main())
