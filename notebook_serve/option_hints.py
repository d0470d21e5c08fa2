"""Names that other tools give to options, and what to write here instead."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from typing import Any

from .errors import WrongCall

#: the longest value that a hint repeats
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

#: what to write for a wrong option of `serve` or `add`; ``{seconds}`` is the value as milliseconds
SERVER = {
    **_named("policy=Greedy(max_batch_size={value})", *_SIZE),
    **_named("policy=Window(max_wait={value})", *_WAIT),
    **_named("policy=Window(max_wait={seconds})", *_WAIT_MS[:-1]),
    **_named("policy=...", "scheduler", "strategy", "batching", "scheduling", "batching_policy"),
    **_named("max_queue_size={value}", *_QUEUE),
    **_named("workers={value}", *_WORKERS, "replicas", "processes", "n_jobs"),
    **_named("threads={value}", "num_threads", "torch_threads", "n_threads", "omp_num_threads"),
    **_named("devices=[{value}]", "device", "gpu", "device_map", "accelerator"),
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
#: the same of `load_test`
LOAD = {
    **_named("concurrency={value}", *_USERS),
    **_named("traffic=Poisson({value})", "rate", "rps", "qps", "arrival_rate", "lambda_"),
    **_named("duration={value}", "seconds", "time", "length", "run_time"),
    **_named("traffic=Poisson(50, n={value})", "n", "requests", "num_requests", "n_requests"),
    **_named("think={value}", "think_time", "pause", "wait"),
    **_named("parameters={value}", "params", "options", "kwargs"),
    **_named("deadline={value}", "slo", "objective", "latency"),
}
#: the same of `simulate` and what takes its options
SIMULATION = {
    **_named("replicas={value}", *_WORKERS, "workers", "servers", "n_replicas"),
    **_named("max_queue_size={value}", *_QUEUE),
    **_named("Greedy(max_batch_size={value}) as the policy", *_SIZE),
    **_named("Window(max_wait={value}) as the policy", *_WAIT),
    **_named("traffic=Poisson({value})", "rate", "rps", "qps"),
    **_named("duration={value}", "seconds", "time", "until"),
    **_named("lengths={value}", "length", "sizes"),
    **_named("cost=CostModel(...)", "cost_model", "service_time", "law"),
}
#: the same of policies
POLICY = {
    **_named("max_batch_size={value}", *_SIZE, "size", "limit", "max_size", "max_requests"),
    **_named("max_wait={value}", *_WAIT, "wait", "timeout", "delay", "window"),
    **_named("max_wait={seconds}", *_WAIT_MS, "wait_ms", "delay_ms"),
    **_named("max_padding={value}", "padding", "max_pad", "max_waste"),
    **_named("max_tokens={value}", "token_budget", "max_batch_tokens", "tokens", "max_num_tokens"),
    **_named("objective={value}", "slo", "latency", "target_latency", "deadline", "goal"),
}
#: which table is for whom; the rest has none but the names of its own options
TABLES: Mapping[str, Mapping[str, str]] = {
    "serve": SERVER,
    "add": SERVER,
    "Server": SERVER,
    "load_test": LOAD,
    "aload_test": LOAD,
    **dict.fromkeys(("simulate", "replay", "what_if", "compare", "capacity", "plan"), SIMULATION),
}


def unknown_option(caller: str, name: str, value: Any, known: Iterable[str]) -> str:
    """Return the sentence for an option that `caller` does not have."""
    names = [option for option in known if not option.startswith("_")]
    wanted = instead(TABLES.get(caller, {}), name, value)
    verb = "use" if wanted.startswith("a ") else "write"
    hint = f"{verb} {wanted}" if wanted else nearest(name, names)
    return f"`{caller}` has no option `{name}`; {hint}"


def check_further(
    caller: Callable[..., Any],
    called: Callable[..., Any],
    options: Mapping[str, Any],
    settled: Mapping[str, str],
) -> None:
    """Refuse `options` that `caller` hands on to `called`, but that do not exist or are `settled`.

    `settled` has the options that `caller` sets itself, and for each what to do instead.
    """
    both = {**inspect.signature(caller).parameters, **inspect.signature(called).parameters}
    names = both.keys() - settled.keys() - {"self", "options"}
    for name, value in options.items():
        meant = instead(SIMULATION, name, value).partition("=")[0] if name not in names else ""
        reason = settled.get(name) or settled.get(meant)
        if reason:
            raise WrongCall(f"`{caller.__name__}` has no option `{name}`; {reason}")
        if name not in names:
            raise WrongCall(unknown_option(caller.__name__, name, value, names))


def instead(table: Mapping[str, str], name: str, value: Any) -> str:
    """Return what to write for `name`, with its value put in; empty if `table` has no such name."""
    text = table.get(name.lower(), "")
    if not any(field for _, field, _, _ in Formatter().parse(text)):
        return text
    return text.format(name=name, value=_short(value), seconds=_short(_seconds(value)))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the names in `known` that `name` may be a misspelling of, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(f'`{option}`' for option in near)}?"
    return f"its options are {', '.join(names)}" if names else "it has no options"


def _seconds(milliseconds: Any) -> Any:
    number = isinstance(milliseconds, (int, float)) and not isinstance(milliseconds, bool)
    return milliseconds / 1000 if number else milliseconds


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_TEXT and " at 0x" not in text else "..."
