"""Hints for unknown options: names of other tools, misspellings, and what to write instead."""

from __future__ import annotations

import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ..errors import WrongCall

#: most characters of a value in a hint
MOST_TEXT = 60


def _named(text: str, *aliases: str) -> dict[str, str]:
    return dict.fromkeys(aliases, text)


_SIZE = ("batch_size", "max_batch", "max_batch_size", "max_bs", "bs", "batch", "batchsize")
_WAIT = ("batch_timeout", "batch_wait_timeout_s", "max_latency", "max_wait", "max_delay")
_WAIT_MS = tuple(
    f"{name}_ms" for name in ("max_wait", "batch_timeout", "max_latency", "max_delay", "timeout")
)
_QUEUE = ("max_queue", "queue_size", "queue_limit", "max_queue_len", "maxsize", "backlog", "queue")
_WORKERS = ("workers_per_device", "num_workers", "n_workers", "max_workers", "num_replicas")
_USERS = ("clients", "users", "connections", "num_clients", "n_clients", "workers", "threads")
_PIPELINE = ("tokenizer", "dtype", "torch_dtype", "revision", "trust_remote_code", "model_kwargs")

#: hints for unknown options of `serve` and `add`; ``{seconds}`` converts a value in milliseconds
SERVER = {
    **_named("policy=Greedy(max_batch_size={value})", *_SIZE),
    **_named("policy=Window(max_wait={value})", *_WAIT),
    **_named("policy=Window(max_wait={seconds})", *_WAIT_MS[:-1]),
    **_named(
        "policy=Greedy(8)", "scheduler", "strategy", "batching", "scheduling", "batching_policy"
    ),
    **_named("max_queue_size={value}", *_QUEUE),
    **_named("workers={value}", *_WORKERS, "replicas", "processes", "n_jobs"),
    **_named("threads={value}", "num_threads", "torch_threads", "n_threads", "omp_num_threads"),
    **_named("devices={value}", "device", "gpu", "device_map", "accelerator"),
    **_named("worker='process'", "process", "use_process", "isolate", "subprocess", "backend"),
    **_named("token='...'", "api_key", "key", "auth", "password", "auth_token", "api_token"),
    **_named(
        "a proxy for https in front of it, or hand serve(..., start=False).app to uvicorn",
        *("ssl", "https", "tls", "ssl_keyfile", "ssl_certfile", "certfile", "keyfile", "cert"),
    ),
    **_named("timeout={value}", "time_out", "request_timeout", "timeout_s", "deadline"),
    **_named("timeout={seconds}", "timeout_ms", "request_timeout_ms"),
    **_named("host={value}", "address", "hostname", "ip", "bind", "server_name"),
    **_named("port={value}", "server_port"),
    **_named("host='0.0.0.0', token='...'", "share", "public", "listen"),
    **_named("allow_origins={value}", "cors", "origins", "cors_origins", "allowed_origins"),
    **_named("allow_hosts={value}", "allowed_hosts", "hosts", "trusted_hosts"),
    **_named("max_body_size={value}", "max_size", "body_limit", "max_request_size", "max_body"),
    **_named("expose_errors={value}", "debug", "show_errors"),
    **_named("the model first: serve(pipe)", "pipe", "pipeline", "function", "fn", "func"),
    **_named("loader={value}", "load", "load_fn", "factory", "model_fn", "init"),
    **_named("serve(pipeline('TASK', ..., {name}=...))", *_PIPELINE),
}
#: hints for `load_test`
LOAD = {
    **_named("concurrency={value}", *_USERS),
    **_named("traffic=Poisson({value})", "rate", "rps", "qps", "arrival_rate", "lambda_"),
    **_named("duration={value}", "seconds", "time", "length", "run_time"),
    **_named("traffic=Poisson(50, n={value})", "n", "requests", "num_requests", "n_requests"),
    **_named("think={value}", "think_time", "pause", "wait"),
    **_named("parameters={value}", "params", "options", "kwargs"),
    **_named("deadline={value}", "slo", "objective", "latency"),
}
#: hints for `simulate` and the functions that take its options
SIMULATION = {
    **_named("replicas={value}", *_WORKERS, "workers", "servers", "n_replicas"),
    **_named("max_queue_size={value}", *_QUEUE),
    **_named("Greedy(max_batch_size={value}) as the policy", *_SIZE),
    **_named("Window(max_wait={value}) as the policy", *_WAIT),
    **_named("traffic=Poisson({value})", "rate", "rps", "qps"),
    **_named("duration={value}", "seconds", "time", "until"),
    **_named("lengths={value}", "length", "sizes"),
    **_named("cost=CostModel(fixed=0.01)", "cost_model", "service_time", "law"),
}
#: hints for policies
POLICY = {
    **_named("max_batch_size={value}", *_SIZE, "size", "limit", "max_size", "max_requests"),
    **_named("max_wait={value}", *_WAIT, "wait", "timeout", "delay", "window"),
    **_named("max_wait={seconds}", *_WAIT_MS, "wait_ms", "delay_ms"),
    **_named("max_padding={value}", "padding", "max_pad", "max_waste"),
    **_named("max_tokens={value}", "token_budget", "max_batch_tokens", "tokens", "max_num_tokens"),
    **_named("objective={value}", "slo", "latency", "target_latency", "deadline", "goal"),
}
#: hints by function; the others have only their own option names
TABLES: Mapping[str, Mapping[str, str]] = {
    "serve": SERVER,
    "add": SERVER,
    "Server": SERVER,
    "load_test": LOAD,
    "aload_test": LOAD,
    **dict.fromkeys(("simulate", "replay", "what_if", "compare", "capacity", "plan"), SIMULATION),
}


#: for each option in a hint: a test of values, and an example that passes it
FITTING: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "Poisson": (lambda value: _is_number(value, 1e-6, 1e6), "50"),
    "concurrency": (lambda value: _is_whole(value), "10"),
    "deadline": (lambda value: _is_number(value, 1e-6), "0.1"),
    "duration": (lambda value: _is_number(value, 1e-6), "10"),
    "expose_errors": (lambda value: isinstance(value, bool), "True"),
    "lengths": (lambda value: _is_whole(value), "[10, 20]"),
    "loader": (lambda value: callable(value) and short(value).isidentifier(), "load"),
    "max_batch_size": (lambda value: _is_whole(value), "8"),
    "max_body_size": (lambda value: _is_whole(value, 1, 2**40), "10_000_000"),
    "max_padding": (lambda value: _is_number(value, 0, 1), "0.5"),
    "max_queue_size": (lambda value: _is_whole(value, 1, 10_000_000), "1000"),
    "max_tokens": (lambda value: _is_whole(value), "4096"),
    "max_wait": (lambda value: _is_number(value, 0), "0.01"),
    "n": (lambda value: _is_whole(value), "1000"),
    "objective": (lambda value: _is_number(value, 1e-6), "0.1"),
    "parameters": (lambda value: isinstance(value, Mapping), "{}"),
    "port": (lambda value: _is_whole(value, 0, 65535), "8000"),
    "replicas": (lambda value: _is_whole(value, 1, 64), "2"),
    "think": (lambda value: _is_number(value, 0), "0.1"),
    "threads": (lambda value: _is_whole(value, 1, 1024), "4"),
    "timeout": (lambda value: _is_number(value, 1e-6), "30"),
    "workers": (lambda value: _is_whole(value, 1, 64), "2"),
}
#: form of a hint with a value: its option or class, and the kind of value
SHOWN = re.compile(r"(\w+)[=(]\{(value|seconds)\}")
#: forms of an origin and a host in a hint
PAGE = re.compile(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:8\d\d\d)?")
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
#: form of an address that a server can probably listen on
ADDRESS = re.compile(r"localhost|\d{1,2}(\.\d{1,2}){3}|127\.\d\.\d\.\d|192\.168\.\d{1,2}\.\d{1,2}")


def unknown_option(caller: str, name: str, value: Any, known: Iterable[str]) -> str:
    """Return the message for an option that `caller` does not have."""
    names = [option for option in known if not option.startswith("_")]
    wanted = suggest(TABLES.get(caller, {}), name, value)
    if caller == "add":
        wanted = _of_add(wanted, names)
    verb = "use " if wanted.startswith("a ") else "write "
    verb = "" if wanted.startswith("leave ") else verb
    hint = f"{verb}{wanted}" if wanted else suggest_spelling(name, names)
    return f"`{caller}` has no option `{name}`; {hint}"


def _of_add(wanted: str, names: Collection[str]) -> str:
    """Return a hint for `serve` as a hint for `add`, which has fewer options."""
    wanted = wanted.replace("model first: serve(", "model second: server.add(NAME, ")
    wanted = wanted.replace("serve(pipeline(", "server.add(NAME, pipeline(")
    option, equals, _ = wanted.partition("=")
    only = equals and option.isidentifier() and option not in names
    return f"it where the server is made: serve(..., {wanted})" if only else wanted


def check_forwarded(
    caller: Callable[..., Any],
    called: Callable[..., Any],
    options: Mapping[str, Any],
    settled: Mapping[str, str],
) -> None:
    """Raise `WrongCall` for an option that `caller` cannot pass on to `called`.

    It is unknown, or in `settled`: the options that `caller` sets itself, each with a remedy.
    """
    both = {**inspect.signature(caller).parameters, **inspect.signature(called).parameters}
    names = both.keys() - settled.keys() - {"self", "options"}
    for name, value in options.items():
        meant = suggest(SIMULATION, name, value).partition("=")[0] if name not in names else ""
        reason = settled.get(name) or settled.get(meant)
        if reason:
            raise WrongCall(f"`{caller.__name__}` has no option `{name}`; {reason}")
        if name not in names:
            raise WrongCall(unknown_option(caller.__name__, name, value, names))


def suggest(table: Mapping[str, str], name: str, value: Any) -> str:
    """Return the hint for `name`; empty if `table` has none.

    The hint has the value if the option accepts it, and an example otherwise.
    """
    text = table.get(name.lower(), "")
    found = SHOWN.search(text)
    if found is None:
        return text.replace("{name}", name)
    option, field = found.groups()
    fitted = _fitted(option, _seconds(value) if field == "seconds" else value)
    return text.replace(f"{{{field}}}", fitted) if fitted else NO_DEVICE


#: hint for a device that is the CPU
NO_DEVICE = "leave it out, the CPU is the default"


def _fitted(option: str, value: Any) -> str:
    """Return the value to write for `option`; empty for a device that is the CPU."""
    if option == "devices":
        return _devices(value)
    if option == "host":
        return _host(value)
    if option in ("allow_origins", "allow_hosts"):
        page = option == "allow_origins"
        return _several(value, PAGE if page else HOST, "https://" * page + "example.org")
    if option not in FITTING:
        return short(value)
    fits, example = FITTING[option]
    return short(value) if fits(value) else example


def _devices(value: Any) -> str:
    if value in (None, "", "cpu") or value is False or (type(value) is int and value < 0):
        return ""
    if (
        isinstance(value, str)
        and value.isprintable()
        and value != "auto"
        and len(value) < MOST_TEXT
    ):
        return repr([value])
    return repr([f"cuda:{value}" if type(value) is int else "cuda:0"])


def _host(value: Any) -> str:
    """Return the host, its port, and a token if other machines can reach it."""
    host, _, port = str(value).partition(":")
    if not isinstance(value, str) or not ADDRESS.fullmatch(host):
        return "'127.0.0.1'"
    token = "" if host in ("127.0.0.1", "localhost") else ", token='...'"
    return repr(host) + (f", port={port}" if port.isdecimal() and len(port) < 5 else "") + token


def _several(value: Any, form: re.Pattern[str], example: str) -> str:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    fits = values and all(isinstance(one, str) and form.fullmatch(one) for one in values)
    return repr(values) if fits and len(repr(values)) <= MOST_TEXT else repr([example])


def _is_whole(value: Any, least: int = 1, most: float = math.inf) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any, least: float, most: float = sys.float_info.max) -> bool:
    return type(value) in (int, float) and least <= value <= most


def suggest_spelling(name: str, known: Iterable[str]) -> str:
    """Return a hint with the names in `known` that are similar to `name`, or with all."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(f'`{option}`' for option in near)}?"
    return f"its options are {', '.join(names)}" if names else "it has no options"


def _seconds(milliseconds: Any) -> Any:
    number = isinstance(milliseconds, (int, float)) and not isinstance(milliseconds, bool)
    return milliseconds / 1000 if number else milliseconds


def short(value: Any) -> str:
    """Return a value for a hint: the name of a function or class; dots for a long repr."""
    if str(getattr(value, "__name__", "")).isidentifier():
        return str(value.__name__)
    try:
        text = repr(value)
    except Exception:  # a repr may raise, as that of a deeply nested value does
        return "..."
    return text if len(text) <= MOST_TEXT and " at 0x" not in text else "..."
