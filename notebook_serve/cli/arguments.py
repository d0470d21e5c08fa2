"""Arguments of the command line: ``notebook-serve demo`` and ``notebook-serve run TASK``."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn, get_args

from .._version import __version__
from ..errors import OptionError, ServeError
from ..models.model_names import DEMO, check_named, check_task
from ..models.pipeline_builder import build_pipeline
from ..queueing.policies import Policy
from ..queueing.policy_parser import parse_policy
from ..server import serve
from ..workers.placement import Kind

EXAMPLES = """\
examples:
  notebook-serve demo                 compare three policies on live traffic, in about a minute
  notebook-serve run demo --open      serve the shipped model, and open its page
  notebook-serve run text-classification --model ./my-model --policy "Greedy(8)" --port 9000
  notebook-serve run fill-mask --model google-bert/bert-base-uncased --worker process --workers 2
  notebook-serve run fill-mask --model ./my-model --host 0.0.0.0 --token SECRET --access-log
"""
#: the options of `serve` that have a flag of the same name
SERVE = {
    *("policy", "worker", "workers", "devices", "threads", "max_queue_size", "timeout"),
    *("host", "port", "token", "name"),
}
#: types of weights that `transformers.pipeline` takes
DTYPES = ("auto", "bfloat16", "float16", "float32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except OptionError as error:
        _exit_with_usage(options.parser, error)
    except ServeError as error:
        print(f"notebook-serve: {replace_names(error.message, options.parser)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("notebook-serve: interrupted", file=sys.stderr)
        return 130


def _exit_with_usage(parser: argparse.ArgumentParser, error: OptionError) -> NoReturn:
    parser.error(replace_names(error.message, parser))  # with exit status 2


def replace_names(message: str, parser: argparse.ArgumentParser) -> str:
    """Replace the options that an error `message` names by the flags of `parser`.

    A message names an option in backticks, with a value (``token='...'``), as its first word, or by
    a name that is no English word, such as ``max_queue_size``.
    """
    for action in parser._actions:
        if action.option_strings and action.option_strings[-1].startswith("--"):
            flag, name = action.option_strings[-1], re.escape(action.dest)
            value = action.metavar or "..."
            message = re.sub(rf"`{name}`", flag, message)
            message = re.sub(rf"\b{name}=(['\"]?)\.\.\.\1", f"{flag} {value}", message)
            message = re.sub(rf"\b{name}=(['\"]?)([^\s'\",;)]+)\1", rf"{flag} \2", message)
            message = re.sub(rf"^{name}\b" if "_" not in name else rf"\b{name}\b", flag, message)
    return message


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="notebook-serve",
        description="Serve a transformers pipeline, and see the effect of queueing and batching.",
        epilog=EXAMPLES,
        formatter_class=style,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(
        commands.add_parser(
            "demo",
            help="serve the shipped model, send it traffic, and compare three policies",
            description="Serve the model that ships with the package, send it traffic under three "
            "policies, and compare them. Downloads nothing.",
        )
    )
    _add_run(
        commands.add_parser(
            "run",
            help="serve a pipeline until Ctrl+C",
            description="Serve a pipeline until Ctrl+C, then finish accepted requests and stop.",
            epilog=EXAMPLES,
            formatter_class=style,
        )
    )
    return parser


# -- demo -----------------------------------------------------------------------------------


def _add_demo(demo: argparse.ArgumentParser) -> None:
    add = demo.add_argument
    add(
        "--seconds",
        type=float,
        default=6.0,
        metavar="SECONDS",
        help="duration of traffic for each policy and kind of text, in two turns (default: 6)",
    )
    add(
        "--clients",
        type=int,
        default=32,
        metavar="N",
        help="number of clients; each sends its next request after an answer (default: 32)",
    )
    add("--port", type=int, metavar="PORT", help="port to listen on (default: 8000, or any free)")
    add("--open", action="store_true", help="open the server's page in a browser")
    add(
        "--no-wait",
        action="store_true",
        help="exit after the table; at a terminal the server otherwise goes on for two minutes, or "
        "until Enter, with light traffic",
    )
    demo.set_defaults(run=_run_demo, parser=demo)


def _run_demo(options: argparse.Namespace) -> int:
    from .demo import Tour

    stays = not options.no_wait and sys.stdin.isatty() and sys.stdout.isatty()
    tour = Tour(options.seconds, options.clients, partial(print, flush=True))
    return tour.run(port=options.port, browse=options.open, stays=stays)


# -- run ------------------------------------------------------------------------------------


def _add_run(run: argparse.ArgumentParser) -> None:
    add = run.add_argument
    add(
        "task",
        type=_task,
        metavar="TASK",
        help='a task of transformers such as fill-mask, or "demo" for the shipped model',
    )
    _add_model(run.add_argument_group("the model"))
    _add_queue(run.add_argument_group("the queue"))
    _add_http(run.add_argument_group("the server"))
    run.set_defaults(run=_run_server, parser=run)


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", metavar="MODEL", help="folder, or name on the Hugging Face hub")
    add("--dtype", choices=DTYPES, help="type of the weights (default: transformers' default)")
    add(
        "--worker",
        choices=get_args(Kind),
        default="thread",
        help="run the model on a thread or in a separate process (default: thread)",
    )
    add(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers; each runs one batch at a time (default: 1)",
    )
    add(
        "--devices",
        type=_devices,
        metavar="LIST",
        help="a device for each worker, such as cuda:0,cuda:1; replaces --workers",
    )
    add(
        "--threads",
        type=int,
        metavar="N",
        help="torch's threads for each worker (default: adapted to the load of the machine)",
    )


def _add_queue(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--policy",
        type=_policy,
        metavar="POLICY",
        help='batching policy, such as "Greedy(8)" or "Window(16, 0.005)" (default: CostAware())',
    )
    add(
        "--max-queue-size",
        type=int,
        metavar="N",
        help="maximum number of waiting requests; more are rejected with 503 (default: 1000)",
    )
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="time after which a request is answered with 504 (default: 30)",
    )


def _add_http(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--host", metavar="HOST", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=int, metavar="PORT", help="port to listen on (default: 8000, or any free)")
    add(
        "--token",
        metavar="TOKEN",
        help="bearer token that clients must send; required for non-loopback hosts",
    )
    add("--name", metavar="NAME", help="name on the page and in paths (default: default)")
    add("--open", action="store_true", help="open the server's page in a browser when it is ready")
    add("--access-log", action="store_true", help="write a line for each request to stderr")


def _task(text: str) -> str:
    with _as_argument_error():
        check_task(text)
    return text


def _policy(text: str) -> Policy:
    with _as_argument_error():
        return parse_policy(text)


def _devices(text: str) -> list[str]:
    devices = [device.strip() for device in text.split(",")]
    if not all(devices):
        raise argparse.ArgumentTypeError(f"must be names such as cuda:0,cuda:1, got {text!r}")
    return devices


@contextlib.contextmanager
def _as_argument_error() -> Iterator[None]:
    """Turn an error of this package into one for which argparse names the argument."""
    try:
        yield
    except ServeError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run_server(options: argparse.Namespace) -> int:
    from ..http.telemetry.access_log import access_log
    from .run import run

    with _exit_on_interrupt():
        check_named(options.task, options.model)
    if options.access_log:
        access_log()
    server = serve(loader=_make_loader(options), start=False, **_serve_options(options))
    return run(server, partial(print, flush=True), token=options.token, browse=options.open)


@contextlib.contextmanager
def _exit_on_interrupt() -> Iterator[None]:
    """Let an interrupt end the process at once: within an import it would raise in a library."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        os.write(2, b"notebook-serve: interrupted\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _make_loader(options: argparse.Namespace) -> Callable[[], Any]:
    if options.dtype is None:
        return partial(build_pipeline, options.task, options.model)
    if options.task == DEMO:
        raise OptionError(
            f"`dtype` cannot be set for {DEMO}, which has float32 weights; leave it out"
        )
    return partial(build_pipeline, options.task, options.model, dtype=options.dtype)


def _serve_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `serve` that were given; the others keep its defaults."""
    return {
        name: value for name, value in vars(options).items() if name in SERVE and value is not None
    }
