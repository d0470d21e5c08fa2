"""The command line: ``notebook-serve demo`` and ``notebook-serve run TASK``."""

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

from ._version import __version__
from .errors import OptionError, ServeError
from .models.model_names import DEMO, check_named, check_task
from .models.pipeline_builder import build_pipeline
from .queueing.policies import Policy
from .queueing.policy_parser import parse_policy
from .server import serve
from .workers.placement import Kind

EXAMPLES = """\
examples:
  notebook-serve demo                 compare three policies on live traffic, in about a minute
  notebook-serve run demo --open      serve the model that ships, and open its page
  notebook-serve run text-classification --model ./my-model --policy "Greedy(8)" --port 9000
  notebook-serve run fill-mask --model google-bert/bert-base-uncased --worker process --workers 2
  notebook-serve run fill-mask --model ./my-model --host 0.0.0.0 --token SECRET --access-log
"""
#: the options of `serve` that have a flag, by the names of both
SERVE = {
    *("policy", "worker", "workers", "devices", "threads", "max_queue_size", "timeout"),
    *("host", "port", "token", "name"),
}
#: of weights, as `transformers.pipeline` takes them
DTYPES = ("auto", "bfloat16", "float16", "float32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except OptionError as error:
        _refuse(options.parser, error)
    except ServeError as error:
        print(f"notebook-serve: {in_flags(error.message, options.parser)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("notebook-serve: interrupted", file=sys.stderr)
        return 130


def _refuse(parser: argparse.ArgumentParser, error: OptionError) -> NoReturn:
    parser.error(in_flags(error.message, parser))  # with exit status 2


def in_flags(message: str, parser: argparse.ArgumentParser) -> str:
    """A `message` of Python's, with the flags of `parser` in place of the options that it names.

    An option is named in backticks, with a value (``token='...'``), as the first word, or by a name
    that no word of English has, such as ``max_queue_size``.
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
        description="Serve a transformers pipeline, and see what queueing and batching do to it.",
        epilog=EXAMPLES,
        formatter_class=style,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(
        commands.add_parser(
            "demo",
            help="serve the model that ships, send it traffic, and compare three policies",
            description="Serve the model that ships with the package, send it traffic under three "
            "policies, and compare them. Downloads nothing.",
        )
    )
    _add_run(
        commands.add_parser(
            "run",
            help="serve a pipeline until Ctrl+C",
            description="Serve a pipeline until Ctrl+C, which answers what was accepted first.",
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
        help="of traffic for each policy and kind of text, in two turns (default: 6)",
    )
    add(
        "--clients",
        type=int,
        default=32,
        metavar="N",
        help="that ask at the same time, each again when it has its answer (default: 32)",
    )
    add("--port", type=int, metavar="PORT", help="to listen on (default: 8000, or any free one)")
    add("--open", action="store_true", help="open the server's page in a browser")
    add(
        "--no-wait",
        action="store_true",
        help="end after the table; else, at a terminal, the server goes on for two minutes, with "
        "light traffic, or until Enter",
    )
    demo.set_defaults(run=_demo, parser=demo)


def _demo(options: argparse.Namespace) -> int:
    from .cli.tour import Tour

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
        help='a task of transformers such as fill-mask, or "demo" for the model that ships',
    )
    _add_model(run.add_argument_group("the model"))
    _add_queue(run.add_argument_group("the queue"))
    _add_http(run.add_argument_group("the server"))
    run.set_defaults(run=_run, parser=run)


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", metavar="MODEL", help="its folder, or its name on the Hugging Face hub")
    add("--dtype", choices=DTYPES, help="of the weights (default: as transformers has it)")
    add(
        "--worker",
        choices=get_args(Kind),
        default="thread",
        help="where the model runs: on a thread, or in a process of its own (default: thread)",
    )
    add("--workers", type=int, metavar="N", help="batches that may run at once (default: 1)")
    add(
        "--devices",
        type=_devices,
        metavar="LIST",
        help="instead of --workers: the device of each, such as cuda:0,cuda:1",
    )
    add("--threads", type=int, metavar="N", help="of torch, for each worker (default: adapted)")


def _add_queue(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--policy",
        type=_policy,
        metavar="POLICY",
        help='such as "Greedy(8)" or "Window(16, 0.005)" (default: CostAware())',
    )
    add(
        "--max-queue-size",
        type=int,
        metavar="N",
        help="requests that may wait; more are rejected with 503 (default: 1000)",
    )
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="after which a request is answered with 504 (default: 30)",
    )


def _add_http(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--host", metavar="HOST", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=int, metavar="PORT", help="to listen on (default: 8000, or any free one)")
    add(
        "--token",
        metavar="TOKEN",
        help="that clients send as Authorization: Bearer TOKEN; needed where others can reach the "
        "server",
    )
    add("--name", metavar="NAME", help="of the server, on its page and in paths (default: default)")
    add("--open", action="store_true", help="open the server's page in a browser once it is ready")
    add("--access-log", action="store_true", help="write a line for each request to stderr")


def _task(text: str) -> str:
    with _as_argument():
        check_task(text)
    return text


def _policy(text: str) -> Policy:
    with _as_argument():
        return parse_policy(text)


def _devices(text: str) -> list[str]:
    devices = [device.strip() for device in text.split(",")]
    if not all(devices):
        raise argparse.ArgumentTypeError(f"give names such as cuda:0,cuda:1, not {text!r}")
    return devices


@contextlib.contextmanager
def _as_argument() -> Iterator[None]:
    """Make an error of this package's one that argparse names the argument with."""
    try:
        yield
    except ServeError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run(options: argparse.Namespace) -> int:
    from .cli.foreground import run
    from .http.telemetry.access_log import access_log

    with _ended_by_interrupt():
        check_named(options.task, options.model)
    if options.access_log:
        access_log()
    server = serve(loader=_loader(options), start=False, **_for_serve(options))
    return run(server, partial(print, flush=True), token=options.token, browse=options.open)


@contextlib.contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    """Let an interrupt end the process at once: in the import of a library it is an error there."""
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


def _loader(options: argparse.Namespace) -> Callable[[], Any]:
    if options.dtype is None:
        return partial(build_pipeline, options.task, options.model)
    if options.task == DEMO:
        raise OptionError(f"`dtype` is not for {DEMO}, whose weights are float32; leave it out")
    return partial(build_pipeline, options.task, options.model, dtype=options.dtype)


def _for_serve(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `serve` that were given; for the others its own defaults hold."""
    return {
        name: value for name, value in vars(options).items() if name in SERVE and value is not None
    }


if __name__ == "__main__":
    sys.exit(main())
