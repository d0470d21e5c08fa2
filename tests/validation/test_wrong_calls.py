"""Wrong calls raise where they stand, and the error has the line to write instead."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from notebook_serve import (
    Adaptive,
    Capacity,
    CoDel,
    CostAware,
    CostModel,
    Decision,
    Greedy,
    Job,
    LengthAware,
    NoBatching,
    OptionError,
    Policy,
    Report,
    ResettingWindow,
    Server,
    Window,
    WrongCall,
    access_log,
    capacity,
    compare,
    demo,
    each,
    load_test,
    plan,
    replay,
    serve,
    servers,
    simulate,
    stop_all,
)
from notebook_serve.dashboard.snapshot import run_command
from notebook_serve.errors import (
    FrozenPolicy,
    InvalidInput,
    LoaderFailed,
    NoSuchModel,
    NotReady,
    UnknownAttribute,
)
from notebook_serve.models.factory import as_model
from notebook_serve.queueing.policy_registry import KINDS, as_policy, options_of
from notebook_serve.queueing.policy_registry import unknown_option as policy_option
from notebook_serve.traffic import Poisson
from notebook_serve.validation.checks import check_hosts, check_origins
from notebook_serve.validation.option_hints import LOAD, POLICY, SERVER, SIMULATION, unknown_option

from ..helpers.compare_answers import called

Make = Callable[..., Server]

COST = CostModel(fixed=0.01)


def given(value: Any) -> Any:
    """Return a value of a type that a type checker would reject."""
    return value


def echo(inputs: list[Any]) -> list[Any]:
    """Return the inputs."""
    return inputs


# -- options that do not exist ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"batch_size": 8}, r"write policy=Greedy\(max_batch_size=8\)"),
        ({"max_batch": 8}, r"write policy=Greedy\(max_batch_size=8\)"),
        ({"max_batch_size": 8}, r"write policy=Greedy\(max_batch_size=8\)"),
        ({"max_wait_ms": 5}, r"write policy=Window\(max_wait=0.005\)"),
        ({"batch_timeout": 0.1}, r"write policy=Window\(max_wait=0.1\)"),
        ({"max_queue": 5}, "write max_queue_size=5"),
        ({"queue_size": 5}, "write max_queue_size=5"),
        ({"workers_per_device": 2}, "write workers=2"),
        ({"device": 0}, r"write devices=\['cuda:0'\]"),
        ({"device": -1}, "leave it out, the CPU is the default"),
        ({"device": "cuda"}, r"write devices=\['cuda'\]"),
        ({"gpu": True}, r"write devices=\['cuda:0'\]"),
        ({"cors": True}, r"write allow_origins=\['https://example.org'\]"),
        ({"n_jobs": -1}, "write workers=2"),
        ({"batch_size": None}, r"write policy=Greedy\(max_batch_size=8\)"),
        ({"max_wait_ms": "5"}, r"write policy=Window\(max_wait=0.01\)"),
        ({"device": "cuda:0"}, r"write devices=\['cuda:0'\]"),
        ({"api_key": "secret"}, r"write token='...'$"),
        ({"ssl_keyfile": "k"}, "a proxy for https"),
        ({"timeout_ms": 500}, "write timeout=0.5"),
        ({"tokenizer": 3}, r"serve\(pipeline\('TASK', ..., tokenizer=...\)\)"),
        ({"timout": 5}, "did you mean `timeout`"),
        ({"polcy": 5}, "did you mean `policy`"),
        ({"foo": 5}, "its options are allow_hosts, allow_origins"),
    ],
    ids=called,
)
def test_an_unknown_option_of_serve_says_what_to_write(options: Any, hint: str) -> None:
    """The hint maps names of other tools and misspellings, or lists all options."""
    (name,) = options
    for call in (serve, Server, serve(echo, start=False).add):
        arguments = ("more", echo) if getattr(call, "__name__", "") == "add" else (echo,)
        with pytest.raises(WrongCall, match=f"has no option `{name}`") as caught:
            call(*arguments, **options)
        assert "secret" not in str(caught.value)
        if call is serve:
            assert caught.match(hint)
    assert servers() == []


@pytest.mark.parametrize("table", [SERVER, LOAD, SIMULATION, POLICY])
def test_every_hint_can_be_written(table: dict[str, str]) -> None:
    """The value may be of any type and any length."""
    for name in table:
        for value in (8, None, "x" * 1000, object()):
            for caller in ("serve", "load_test", "simulate"):
                sentence = unknown_option(caller, name, value, ["timeout"])
                assert name in sentence
                assert len(sentence) < 250
                assert " at 0x" not in sentence


VALUES = [
    *(8, 0, -1, 5000, 0.5, float("nan"), float("inf"), True, False, None, "", "8", "x", "cuda"),
    *("x" * 1000, "a b", "https://example.org", "127.0.0.1:8000", "0.0.0.0", [], [1], ["a b"]),
    *({"a": 1}, object(), echo, lambda: echo, "auto", "cpu", "127.0.0.1"),
]


def load(inputs: Any = None) -> Any:
    """Return a model; `load` is the name of a loader in the hints."""
    return echo


def hints(table: dict[str, str], caller: str, known: list[str]) -> set[str]:
    """Return the lines in the hints of a table, for all names and values."""
    sentences = {unknown_option(caller, name, value, known) for name in table for value in VALUES}
    return {said.partition("; write ")[2] for said in sentences} - {""}


NAMES: dict[str, Any] = {
    "echo": echo,
    "load": load,
    "Greedy": Greedy,
    "Window": Window,
    "Poisson": Poisson,
    "CostModel": CostModel,
    "serve": serve,
}


def test_every_hint_of_serve_is_accepted() -> None:
    """The line in the hint is valid for every value."""
    known = list(inspect.signature(serve).parameters)
    written = hints(SERVER, "serve", known)
    assert len(written) > 40
    for line in written:
        if line.startswith(("the model", "serve(pipeline", "loader=echo")):
            continue
        first = "" if line.startswith("loader=") else "loader=load, "
        server = eval(f"serve({first}start=False, {line})", NAMES)
        assert server.state == "new", line


def test_every_hint_of_add_is_accepted() -> None:
    """A hint for an option of the server is a call of `serve`."""
    known = list(inspect.signature(Server.add).parameters)
    for line in hints(SERVER, "add", known):
        if line.startswith(("the model", "server.add(NAME, pipe", "loader=echo")):
            continue
        only = line.startswith("it where the server is made: ")
        first = "" if line.startswith("loader=") else "loader=load, "
        call = line.partition(": ")[2].replace("...,", "loader=load, start=False,")
        added = call if only else f"serve(echo, start=False).add('x', {first}{line})"
        assert eval(added, NAMES).state == "new", line


def test_every_hint_of_a_simulation_and_of_a_load_test_is_accepted() -> None:
    """A load test checks its options before it finds that the server does not run."""
    for line in hints(SIMULATION, "simulate", ["traffic"]):
        if line.endswith(" as the policy"):
            assert eval(line.removesuffix(" as the policy"), NAMES)
            continue
        options = eval(f"dict({line})", NAMES)
        usual = {"traffic": Poisson(5), "cost": COST, "duration": 1}
        if options.get("duration", 0) > 100:
            continue  # it would be accepted, and take long
        assert simulate(Greedy(), **{**usual, **options})
    for line in hints(LOAD, "load_test", ["traffic"]):
        options = eval(f"dict({line})", NAMES)
        if options.get("parameters"):
            continue  # that is of the model
        usual = given({}) if {"traffic", "concurrency"} & set(options) else {"concurrency": 1}
        with pytest.raises(NotReady):
            load_test(serve(echo, start=False), ["x"], **usual, **options)


def test_every_hint_of_a_policy_is_accepted() -> None:
    """The hint names the policy itself, or another one with the option."""
    for kind in KINDS.values():
        for name in POLICY:
            for value in VALUES:
                said = policy_option(kind, name, value)
                call = re.search(r"(?:write|such as) (\w+\(.*\))$", said)
                if call is not None:
                    assert as_policy(call[1])


def test_no_hint_is_for_an_option_that_exists() -> None:
    """A hint for the name of an existing option would never be shown."""
    for function, table in ((serve, SERVER), (load_test, LOAD), (simulate, SIMULATION)):
        own = set(inspect.signature(function).parameters)
        assert not (own & set(table)) - {"workers"}, function
    assert "policy" in inspect.signature(serve).parameters


def test_the_signature_is_as_it_was() -> None:
    """Shift-Tab shows the options, and not the wrapper that checks them."""
    shown = str(inspect.signature(serve))
    assert shown.startswith("(served: 'Any' = None, /, *, model: 'Any' = None, loader:")
    assert "unknown" not in shown
    assert str(inspect.signature(Greedy)).startswith("(max_batch_size: 'int' = 16)")


def test_other_functions_hint_too() -> None:
    """`users` of a load test is `concurrency`, `workers` of a simulation is `replicas`."""
    with pytest.raises(WrongCall, match="write concurrency=3"):
        load_test("http://localhost", ["x"], users=3)  # type: ignore[call-arg]
    with pytest.raises(WrongCall, match=r"traffic=Poisson\(30\)"):
        load_test("http://localhost", ["x"], rps=30)  # type: ignore[call-arg]
    for call in (
        lambda: simulate(Greedy(), Poisson(5), COST, workers=3),  # type: ignore[call-arg]
        lambda: capacity(Greedy(), COST, 0.1, workers=3),
        lambda: compare([Greedy()], cost=COST, workers=3),
    ):
        with pytest.raises(WrongCall, match="write replicas=3"):
            call()


def test_positional_options_raise_with_a_hint() -> None:
    """A policy as the second argument is a common mistake."""
    with pytest.raises(WrongCall, match="pass options by name, such as policy="):
        serve(echo, Greedy(8))  # type: ignore[call-arg]


# -- policies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: Greedy(batch_size=8), r"write Greedy\(max_batch_size=8\)"),  # type: ignore[call-arg]
        (lambda: Greedy(max_wait=1), r"Window have it, such as Window\(max_wait=1\)"),  # type: ignore[call-arg]
        (lambda: Window(max_wait_ms=5), r"write Window\(max_wait=0.005\)"),  # type: ignore[call-arg]
        (lambda: Window(max_bacth_size=5), "did you mean `max_batch_size`"),  # type: ignore[call-arg]
        (lambda: LengthAware(foo=5), "its options are max_batch_size, max_padding"),  # type: ignore[call-arg]
        (lambda: CostAware(slo=5), r"Adaptive has it, such as Adaptive\(objective=5\)"),  # type: ignore[call-arg]
        (lambda: NoBatching(8), "too many arguments, 1; it has no options"),  # type: ignore[call-arg]
        (lambda: Greedy(1, 2), "its options are max_batch_size"),  # type: ignore[call-arg]
    ],
    ids=called,
)
def test_an_unknown_option_of_a_policy_says_what_to_write(make: Any, hint: str) -> None:
    """The hint has the right name, or another policy with the option."""
    with pytest.raises(WrongCall, match=hint):
        make()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_a_policy_cannot_be_changed_in_place(kind: Any) -> None:
    """The error has the policy to set instead; copies and pickles are equal."""
    policy = kind()
    for name in options_of(kind):
        value = getattr(policy, name)
        with pytest.raises(FrozenPolicy, match=r"server.policy = \w+\(") as caught:
            setattr(policy, name, value)
        assert isinstance(caught.value, dataclasses.FrozenInstanceError)
    with pytest.raises(UnknownAttribute, match=f"{kind.__name__} has no option `max_bach_size`"):
        policy.max_bach_size = 3
    for same in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy)), copy.copy(policy)):
        assert same == policy
        assert repr(same) == repr(policy)
        with pytest.raises(AttributeError):
            same.something = 1


def test_a_wrong_value_raises_when_it_is_set() -> None:
    """The error is about the value, and not about setting it."""
    with pytest.raises(OptionError, match="whole number >= 1, got 0"):
        Greedy().max_batch_size = 0  # type: ignore[misc]


def test_a_policy_of_ones_own_may_do_as_it_likes() -> None:
    """Subclasses of built-in policies have options and attributes of their own."""

    @dataclasses.dataclass
    class Counting(CostAware):
        calls: int = 0

        def decide(self, waiting: Sequence[Job], now: float) -> Decision:
            self.calls += 1
            self.note = "mine"
            return super().decide(waiting, now)

    policy = Counting(max_batch_size=3, calls=1)
    policy.decide([Job(1, 0.0, 5)], 0.0)
    policy.max_batch_size = 9
    assert (policy.calls, policy.max_batch_size) == (2, 9)


class Own:
    """A user's policy, made without arguments."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest."""
        return Decision((waiting[0],), reason="own")

    def __repr__(self) -> str:
        return "Own()"


class Needs(Own):
    """A user's policy that needs an argument."""

    def __init__(self, size: int) -> None:
        self.size = size


def ways_to_set() -> dict[str, Callable[[Any], str]]:
    """Return each way to set a policy: a function to the repr of the policy in effect."""

    def setter(given: Any) -> str:
        server = serve(echo, start=False)
        server.policy = given
        return repr(server.policy)

    def endpoint(given: Any) -> str:
        added = serve(echo, start=False).add("more", echo)
        added.policy = given
        return repr(added.policy)

    def what_if(given: Any) -> str:
        with serve(echo, port=0, name="what if") as server:
            server.predict(list(range(30)))
            return server.what_if(given, cost=COST).policy

    def replayed(given: Any) -> str:
        with serve(echo, port=0, name="replay") as server:
            server.predict([1])
            return replay(server.records(), given, COST).policy

    return {
        "serve": lambda given: repr(serve(echo, policy=given, start=False).policy),
        "Server": lambda given: repr(Server(echo, policy=given).policy),
        "add": lambda given: repr(serve(echo, start=False).add("x", echo, policy=given).policy),
        "setter": setter,
        "endpoint": endpoint,
        "what_if": what_if,
        "replay": replayed,
        "simulate": lambda given: simulate(given, Poisson(9), COST, duration=2).policy,
        "compare": lambda given: compare([given], cost=COST, rates=[9], duration=2).rows()[0][
            "policy"
        ],
        "capacity": lambda given: "" if capacity(given, COST, 0.1, requests=50) else "none",
        "plan": lambda given: plan(given, COST, 9, 0.1, requests=50).report.policy,
        "CoDel": lambda given: repr(CoDel(given).policy),
    }


@pytest.mark.parametrize("way", ways_to_set())
def test_a_class_or_a_text_is_a_policy_everywhere(way: str) -> None:
    """Every function accepts ``Greedy`` and ``"Greedy(8)"``."""
    take = ways_to_set()[way]
    for given, expected in [
        (Greedy, "Greedy(max_batch_size=16)"),
        ("Greedy(8)", "Greedy(max_batch_size=8)"),
        ("Greedy", "Greedy(max_batch_size=16)"),
        (Greedy(8), "Greedy(max_batch_size=8)"),
        (Own, "Own()"),
    ]:
        assert take(given) in (expected, "")


@pytest.mark.parametrize("way", ways_to_set())
def test_a_value_that_is_no_policy_raises_with_a_hint(way: str) -> None:
    """A class that needs arguments, an unknown name, a function and an object all raise."""
    take = ways_to_set()[way]
    for given, said in [
        (Needs, r"needs arguments; write Needs\(size=...\)"),
        ("Gredy(8)", "did you mean `Greedy`"),
        ("Greedy(batch_size=8)", r"write Greedy\(max_batch_size=8\)"),
        (echo, "a policy must be an object with decide"),
        (object, "a policy must be an object with decide"),
        (3, r"got 3; write one such as Greedy\(max_batch_size=8\)"),
        (object(), "got <object>"),
    ]:
        with pytest.raises(OptionError, match=said):
            take(given)


def test_a_list_of_policies_is_a_list() -> None:
    """A single policy or text is not taken for a list."""
    for given in (Greedy(), Greedy, "Greedy"):
        with pytest.raises(OptionError, match=r"policies must be a list"):
            compare(given, cost=COST)  # type: ignore[arg-type]


def test_a_control_of_the_page_reads_a_policy_as_all_do(make: Make) -> None:
    """Its errors have the same messages."""
    server = make(echo)
    run_command(server._engine, {"do": "policy", "policy": "Window"})
    assert server.policy == Window()
    with pytest.raises(OptionError, match="did you mean `Greedy`"):
        run_command(server._engine, {"do": "policy", "policy": "Gredy(8)"})


@pytest.mark.parametrize("policy", [Adaptive(), CoDel(), CostAware(), ResettingWindow()])
def test_the_policies_that_ship_are_policies(policy: Any) -> None:
    """The decorator of built-in policies leaves them dataclasses and policies."""
    assert dataclasses.replace(policy) == policy
    assert isinstance(policy, Policy)


# -- attributes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("polcy", Greedy(), "did you mean `policy`"),
        ("max_batch_size", 4, r".policy = Greedy\(max_batch_size=4\)"),
        ("max_wait_ms", 5, r".policy = Window\(max_wait=0.005\)"),
        ("timeout", 5, r"\(..., timeout=5\)"),
        ("max_queue_size", 5, r"\(..., max_queue_size=5\)"),
        ("queue_size", 5, r"\(..., max_queue_size=5\)"),
        ("token", "secret", r"\(..., token='...'\)"),
        ("stats", 3, "it is read-only"),
        ("url", "x", "it is read-only"),
        ("predict", echo, "it is read-only"),
        ("foo", 3, "only its policy can be set"),
    ],
)
@pytest.mark.parametrize("kind", ["server", "endpoint"])
def test_an_attribute_that_is_none_cannot_be_set(
    name: str, value: Any, said: str, kind: str
) -> None:
    """Python would store it and nothing would read it; the error has the line to write."""
    server = serve(echo, start=False)
    target: Any = server if kind == "server" else server.add("more", echo)
    with pytest.raises(UnknownAttribute, match=said) as caught:
        setattr(target, name, value)
    assert str(caught.value).startswith(f"`{kind}.{name}` cannot be set")
    assert "secret" not in str(caught.value)


# -- values that make no sense ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": 8000}, "write port=8000"),
        ({"host": ""}, "host must be an address"),
        ({"host": None}, "host must be an address"),
        ({"host": "http://localhost"}, "without a scheme"),
        ({"name": "a/b"}, "name must not contain '/'"),
        ({"name": "a\\b"}, "name must not contain"),
        ({"name": "a?b"}, "name must not contain"),
        ({"name": "a\nb"}, "name must not contain"),
        ({"name": ""}, "name must be a text that is not empty"),
        ({"name": " "}, "name must be a text that is not empty"),
        ({"name": None}, "name must be a text that is not empty"),
        ({"name": 3}, "name must be a text that is not empty"),
        ({"name": "x" * 101}, "at most 100 letters, got 101"),
        ({"port": "8000"}, "port must be a whole number"),
        ({"port": True}, "port must be a whole number"),
        ({"port": -1}, "port must be a whole number"),
        ({"token": 123}, "token must be a string that is not empty, got int"),
        ({"token": ""}, "token must be a string that is not empty"),
        ({"token": "a\n"}, "white space at an end"),
        ({"token": " a"}, "white space at an end"),
        ({"token": "a\nb"}, "a control character"),
        ({"token": "a\x00"}, "a control character"),
        ({"host": "127.0.0.1:8000"}, "write host='127.0.0.1', port=8000"),
        ({"host": "localhost:8000"}, "write host='localhost', port=8000"),
        ({"host": "[::1]:8000"}, "write host='::1', port=8000"),
        ({"start": "no"}, "start must be True or False, got 'no'"),
        ({"start": None}, "start must be True or False"),
        ({"threads": 10_000}, "threads` must be a whole number >= 1 and <= 1024"),
        ({"allow_origins": ["example.org"]}, "needs a scheme, .* write 'https://example.org'"),
        (
            {"allow_origins": ["localhost:3000"]},
            "needs a scheme, .* write 'https://localhost:3000'",
        ),
        ({"allow_origins": ["https://a/b"]}, "a scheme and a host only, .* write 'https://a'"),
        ({"allow_origins": ["https://a?x"]}, "a scheme and a host only"),
        ({"allow_origins": ["https://me@a"]}, "a scheme and a host only"),
        ({"allow_origins": [""]}, "such as 'https://example.org', got ''"),
        ({"allow_origins": ["*"]}, "such as 'https://example.org'"),
        ({"allow_origins": ["https://a b"]}, "such as 'https://example.org'"),
        ({"allow_origins": ["https://a:x"]}, "such as 'https://example.org'"),
        ({"allow_hosts": ["http://a"]}, "without a scheme, .* write 'a'"),
        ({"allow_hosts": ["a b"]}, "names of hosts"),
        ({"allow_hosts": [""]}, "names of hosts"),
        ({"allow_hosts": ["*"]}, "names of hosts"),
        ({"allow_hosts": ["a/b"]}, "names of hosts"),
        ({"timeout": "5"}, "timeout must be a positive number"),
        ({"timeout": None}, "timeout must be a positive number"),
        ({"timeout": float("nan")}, "timeout must be a positive number"),
        ({"max_queue_size": 1.5}, "max_queue_size must be a whole number"),
        ({"workers": 0}, "`workers` must be a number from 1"),
        ({"workers": "2"}, "`workers` must be a whole number"),
        ({"devices": "cuda"}, r"write devices=\['cuda'\]"),
        ({"devices": 0}, "`devices` must be a list"),
        ({"devices": [0]}, "`devices` must be a list"),
        ({"devices": []}, "`devices` must be a list"),
        ({"allow_origins": "https://x"}, r"write allow_origins=\['https://x'\]"),
        ({"allow_origins": 3}, "allow_origins must be a list"),
        ({"allow_hosts": None}, "allow_hosts must be a list"),
        ({"allow_hosts": b"x"}, "allow_hosts must be a list"),
        ({"worker": "processes"}, "`worker` must be 'thread' or 'process'"),
        ({"worker": ["thread"]}, "`worker` must be 'thread' or 'process'"),
        ({"refuse_late": "no"}, "refuse_late must be True or False"),
        ({"expose_errors": 1}, "expose_errors must be True or False"),
        ({"overtime": "3"}, "overtime needs worker='process'"),
    ],
    ids=called,
)
def test_an_invalid_option_raises(options: Any, said: str) -> None:
    """The error has the option, the value and a remedy; nothing starts."""
    with pytest.raises(OptionError, match=said):
        serve(echo, **options)
    assert servers() == []


@pytest.mark.parametrize("pages", [["https://A.example/"], ["HTTPS://a.example:443"]])
def test_a_page_is_allowed_however_it_is_written(make: Make, pages: list[str]) -> None:
    """A browser sends it in lower case, without a default port and without a slash."""
    server = make(echo, allow_origins=pages, allow_hosts=["MINE.example:80"])
    headers = {"Origin": "https://a.example", "Host": "mine.example:9"}
    with server.httpx() as client:
        assert client.post("/", content="x", headers=headers).status_code == 200
        elsewhere = {**headers, "Origin": "https://b.example"}
        assert client.post("/", content="x", headers=elsewhere).status_code == 403


def test_names_and_pages_are_kept_as_requests_have_them() -> None:
    """Origins keep their ports, hosts do not; an IPv6 address is in brackets."""
    assert check_hosts(
        ["B.example:8000", "::1", "[::2]:80", "10.0.0.1", "b\u00fccher.example"]
    ) == (*("b.example", "[::1]", "[::2]", "10.0.0.1", "xn--bcher-kva.example"),)
    pages = ["http://a:80/", "http://a:8080", "https://[::1]:3", "vscode-webview://x", "null"]
    kept = ("http://a", "http://a:8080", "https://[::1]:3", "vscode-webview://x", "null")
    assert check_origins(pages) == kept


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda s: s.predict("a", timeout="x"),
            "timeout must be a positive number of seconds, got 'x'",
        ),
        (lambda s: s.predict("a", timeout=True), "timeout must be a positive number"),
        (lambda s: s.predict("a", timeout=float("nan")), "timeout must be a positive number"),
        (lambda s: s.stream("a", timeout="1"), "timeout must be a positive number"),
        (lambda s: s.wait_ready("x"), "timeout must be a number of seconds >= 0, got 'x'"),
        (lambda s: s["default"].wait_ready(True), "timeout must be a number of seconds >= 0"),
        (lambda s: s.wait_ready(progress="x"), "progress must be True or False, got 'x'"),
        (lambda s: s.stop(timeout="x"), "timeout must be a number of seconds >= 0"),
        (lambda s: s.stop(drain="no"), "drain must be True or False, got 'no'"),
        (lambda s: s.stop(timeout=float("inf")), "timeout must be a number of seconds >= 0"),
        (lambda s: stop_all(drain=0), "drain must be True or False"),  # type: ignore[arg-type]
        (lambda s: s.add("m", echo, timeout="x"), "timeout must be a positive number"),
        (lambda s: load_test(s, ["x"], concurrency=1, progress=given("x")), "progress must be"),
        (lambda s: load_test(s, ["x"], concurrency=1, share_loop=given(1)), "share_loop must be"),
        (
            lambda s: load_test(s, ["x"], concurrency=1, parameters=given([1])),
            "must be a dict of name",
        ),
        (lambda s: load_test(s, ["x"], concurrency=1, parameters={"foo": 1}), "parameter 'foo'"),
        (lambda s: load_test(given(echo), ["x"], concurrency=1), r"got <function echo>$"),
        (lambda s: load_test(s, given(object()), concurrency=1), r"got <object>$"),
        (lambda s: access_log(json=given("x")), "json must be True or False"),
        (lambda s: s.add(echo), r"the name comes first; write server.add\('more', echo\)"),
        (lambda s: s.add(3, echo), "a model's name must be letters, .*, got 3"),
        (lambda s: s.predict("a", "b"), r"pass several as a list: predict\(\['a', 'b'\]\)"),
        (lambda s: s.predict("a", 5), "pass options by name: timeout"),
        (lambda s: s.stream("a", "b"), "pass options by name: stop, timeout"),
        (lambda s: compare(Greedy(), NoBatching()), r"compare\(\[.*NoBatching\(\)\]"),  # type: ignore[arg-type, call-arg]
    ],
)
def test_an_invalid_argument_raises(make: Make, call: Any, said: str) -> None:
    """The error names the option; Python's would be about a comparison somewhere inside."""
    server = make(echo)
    with pytest.raises(OptionError, match=said):
        call(server)
    assert server.state == "ready"


def test_an_unknown_parameter_may_be_a_misspelt_one(make: Make) -> None:
    """The hint has a parameter of the model, or of `predict` itself."""

    def model(inputs: list[Any], top_k: int = 1) -> list[Any]:
        return inputs

    server = make(model)
    with pytest.raises(InvalidInput, match="did you mean 'top_k'"):
        server.predict("a", topk=2)
    with pytest.raises(InvalidInput, match="did you mean `timeout`"):
        server.predict("a", tmeout=2)
    assert server.predict("a", top_k=2) == "a"


def test_a_model_that_is_gone_says_so(make: Make) -> None:
    """Setting its policy would have no effect, and a client would get 404."""
    server = make(echo)
    more = server.add("more", echo)
    server.remove("more")
    for use in (lambda: setattr(more, "policy", Greedy()), lambda: more.predict(1)):
        with pytest.raises(OptionError, match="no longer has model 'more'"):
            use()
    for client in (server.client, server.aclient):
        with pytest.raises(NoSuchModel, match="no model 'nope'"):
            client("nope")


def test_setting_an_option_of_serve_later_has_a_hint() -> None:
    """All but the policy are given once; `start` is a method."""
    options = set(inspect.signature(serve).parameters) - {"served", "policy", "start"}
    assert options == set(Server._calls) - {"policy"}
    server: Any = serve(echo, start=False)
    for name in options:
        with pytest.raises(UnknownAttribute, match=rf"serve\(..., {name}=") as caught:
            setattr(server, name, echo)
        assert " at 0x" not in str(caught.value)


def test_a_loader_that_needs_an_argument_raises_in_the_cell() -> None:
    """A batch function as the loader would fail much later, in the worker."""
    with pytest.raises(OptionError, match="a callable without arguments that returns a model"):
        serve(loader=given(echo))
    with pytest.raises(OptionError, match="a callable without arguments"):
        serve(loader=given(lambda device: echo))
    assert servers() == []
    assert serve(loader=given(lambda device: echo), devices=["cpu"], start=False).state == "new"
    assert serve(loader=given(lambda device="cpu": echo), start=False).state == "new"


@pytest.mark.parametrize("name", ["command line", "über", "a.b-c_d", "<i>", "日本", "x & y"])
def test_a_name_is_any_text_that_fits_into_an_address(name: str) -> None:
    """Blanks and letters of any script are fine."""
    assert serve(echo, name=name, start=False).name == name


# -- what is served ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe() -> Any:
    """Return the pipeline that ships."""
    return demo.pipeline()


def test_a_part_of_a_pipeline_raises_with_the_line_that_works(pipe: Any) -> None:
    """A model, a tokenizer or a configuration alone would fail every request."""
    for part, line in [
        (pipe.model, r"serve\(pipeline\('fill-mask', model=model, tokenizer=tokenizer\)\)"),
        (pipe.model.forward, "tokenizer=tokenizer"),
        (pipe.tokenizer, "tokenizer=tokenizer"),
        (pipe.tokenizer._tokenizer, "tokenizer=tokenizer"),
        (pipe.model.config, r"serve\(pipeline\("),
        (type(pipe), r"write serve\(pipeline\('TASK', model=...\)\), which builds one"),
        (type(pipe.model), "is a class"),
    ]:
        with pytest.raises(OptionError, match=line):
            serve(part)
        if not isinstance(part, type):
            with pytest.raises(OptionError, match=line):
                each(part)
    with pytest.raises(OptionError, match=r"already takes a list; write serve\(pipe\)"):
        each(pipe)


def test_a_method_of_ones_own_module_of_torch_serves(make: Make) -> None:
    """Only the methods that take tensors are refused."""
    import torch

    class Net(torch.nn.Module):  # type: ignore[misc]
        def predict_texts(self, texts: list[str]) -> list[str]:
            return [text.upper() for text in texts]

    assert make(Net().predict_texts).predict(["a"]) == ["A"]
    assert each(torch.nn.functional.relu)([torch.tensor(-1.0)]) == [0.0]


def test_an_object_of_another_library_raises_with_the_line_that_works(make: Make) -> None:
    """Modules of torch, estimators, data sets, modules of Python, servers."""
    import numpy as np
    import torch

    linear_model: Any = pytest.importorskip("sklearn.linear_model")
    estimator = linear_model.LogisticRegression()
    for thing, line in [
        (torch.nn.Linear(2, 2), "Linear is a torch module, not a pipeline; write a batch function"),
        (torch.nn.Linear(2, 2).forward, "Linear is a torch module"),
        (torch.nn.Linear(2, 2).__call__, "Linear is a torch module"),
        (serve, "serve is a function of notebook_serve"),
        (each, "each is a function of notebook_serve"),
        (torch.utils.data.TensorDataset(torch.ones(2)), "holds inputs"),
        (estimator, r"write serve\(model.predict\)"),
        (
            linear_model.LogisticRegression,
            r"give an instance: serve\(LogisticRegression\(...\)\)",
        ),
        (np, "is a Python module"),
        (serve(echo, start=False), "is already serving"),
        ([1], "neither a transformers pipeline nor a callable"),
    ]:
        with pytest.raises(OptionError, match=line):
            serve(thing)
    estimator.fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    server = make(estimator.predict)
    assert server.predict([[0.0], [3.0]]) == [0, 1]


def test_a_processor_raises() -> None:
    """They only prepare images and audio."""
    from transformers import ViTImageProcessorPil, Wav2Vec2FeatureExtractor

    with pytest.raises(OptionError, match="image_processor=image_processor"):
        as_model(ViTImageProcessorPil())
    with pytest.raises(OptionError, match="processor=processor"):
        as_model(Wav2Vec2FeatureExtractor())


def test_a_torch_module_from_a_loader_fails_the_server() -> None:
    """The state is failed, and the error is that of `serve`."""
    import torch

    server = serve(loader=lambda: torch.nn.Linear(2, 2), port=0, name="linear")
    with pytest.raises(LoaderFailed, match="is a torch module, not a pipeline"):
        server.wait_ready(30)
    assert server.state == "failed"


# -- tasks ------------------------------------------------------------------------------------


@pytest.fixture
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that makes a pipeline, which could fetch one."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a pipeline was made")

    monkeypatch.setattr("transformers.pipeline", refuse)


@pytest.mark.usefixtures("no_pipeline")
@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("text-classification", {}, r"serve\('text-classification', model='distilbert/distil"),
        ("sentiment-analysis", {}, r"serve\('sentiment-analysis', model='distilbert/distil"),
        ("fillmask", {}, "did you mean fill-mask"),
        ("fillmask", {"model": "x"}, "did you mean fill-mask"),
        ("google/bert", {}, r"serve\('TASK', model='google/bert'\)"),
        ("bert-base-uncased", {}, r"serve\(pipeline\('TASK', model='bert-base-uncased'\)\)"),
        (None, {"model": "google/bert"}, r"serve\('TASK', model='google/bert'\)"),
        ("fill-mask", {"model": "./nowhere"}, "a folder that exists or a name on the hub"),
        (
            "fill-mask",
            {"model": Path("/no/such/folder")},
            "a folder that exists or a name on the hub",
        ),
        ("fill-mask", {"model": ""}, "a name on the hub, got ''"),
        ("fill-mask", {"model": echo}, r"serve\(pipeline\('fill-mask', model=model, tokenizer"),
        ("fill-mask", {"loader": echo}, "either a loader, or a task"),
        (echo, {"model": echo}, "give one model"),
        ("", {}, "is not a task"),
    ],
    ids=called,
)
def test_a_task_without_a_model_fetches_nothing(given: Any, options: Any, said: str) -> None:
    """Only a named model is downloaded; the error has the line to write."""
    for call in (serve, lambda *a, **k: serve(echo, start=False).add("more", *a, **k)):
        with pytest.raises(OptionError) as caught:
            call(*([] if given is None else [given]), **options)
        assert re.search(said, str(caught.value).replace("server.add('more', ", "serve("))


def folder() -> str:
    """Return the folder of the model that ships."""
    return str(Path(demo.__file__).parent / "model")


def test_a_task_and_a_folder_are_served(make: Make, capsys: Any, pipe: Any) -> None:
    """The pipeline is made as on the command line, and the cell shows its source."""
    with demo.no_progress_bars():
        server = make("fill-mask", model=Path(folder()))
        more = server.add("more", "fill-mask", model=folder())
    assert f"loaded fill-mask: BertForMaskedLM from {folder()}" in capsys.readouterr().out
    assert server.model.source == folder()
    assert folder() in repr(server.model)
    expected = pipe("raise a [MASK]")[0]["token_str"]
    assert server.predict("raise a [MASK]")[0]["token_str"] == expected
    assert more.predict("raise a [MASK]")[0]["token_str"] == expected


def test_a_task_is_loaded_in_the_workers_process(make: Make, capsys: Any) -> None:
    """The notebook's process then has no weights."""
    server = make("demo", worker="process")
    server.wait_ready(100)
    assert "the worker loads demo" in capsys.readouterr().out
    assert len(server.predict("raise a [MASK]")) == 5


def test_a_folder_alone_raises_with_its_task() -> None:
    """The task comes from the configuration in the folder."""
    with pytest.raises(OptionError, match="'fill-mask', model="):
        serve(folder())


def test_a_folder_without_a_model_raises(tmp_path: Path) -> None:
    """Without a configuration it raises at once; otherwise with the error of the library."""
    with pytest.raises(OptionError, match=r"must be a folder with a config\.json"):
        serve("fill-mask", model=tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LoaderFailed, match="loading fill-mask from"):
        serve("fill-mask", model=tmp_path)


def test_advice_of_add_is_of_add() -> None:
    """The line in the error has the name of the model."""
    server = serve(echo, start=False)
    with pytest.raises(OptionError, match=r"server.add\('m', 'fill-mask', model='"):
        server.add("m", "fill-mask")
    with pytest.raises(OptionError, match=r"write serve\('TASK', model='FOLDER OR NAME'\)"):
        serve("")


def test_the_model_may_be_given_by_name(make: Make) -> None:
    """``serve(model=f)`` is ``serve(f)``."""
    assert make(model=echo).predict(1) == 1


# -- simulations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: capacity(Greedy(), COST, 0.1, duration=5), "`capacity` has no option `duration`"),
        (lambda: capacity(Greedy(), COST, 0.1, traffic=Poisson(5)), "`simulate` takes other"),
        (lambda: capacity(Greedy(), COST, 0.1, quantle="p50"), "did you mean `quantile`"),
        (lambda: plan(Greedy(), COST, 5.0, 0.1, replicas=2), "`plan` has no option `replicas`"),
        (lambda: plan(Greedy(), COST, 5.0, 0.1, duration=2), "`plan` has no option `duration`"),
        (lambda: compare([Greedy()], cost=COST, rate=5), "give rates="),
        (lambda: replay([], Greedy(), COST, lengths=5), "`replay` has no option `lengths`"),
    ],
)
def test_an_option_that_a_function_sets_itself_raises(call: Any, said: str) -> None:
    """The error names the called function, and has a remedy."""
    with pytest.raises(WrongCall, match=said):
        call()


@pytest.mark.parametrize("options", [{"lengths": 5}, {"traffic": Poisson(5)}, {"rate": 5}])
def test_what_if_keeps_the_requests_as_they_were(make: Make, options: dict[str, Any]) -> None:
    """Its arrivals and lengths are those of the recorded requests."""
    with pytest.raises(
        WrongCall, match="`what_if` has no option .* the recorded requests determine"
    ):
        make(echo).what_if(Greedy(), cost=COST, **options)


def test_what_if_notes_that_all_requests_are_in_the_warm_up(make: Make) -> None:
    """A duration much longer than the recording leaves nothing to report."""
    server = make(echo)
    server.predict(["a"] * 5)
    (note,) = server.what_if(Greedy(), cost=COST, duration=50_000.0).notes
    assert "arrived within the warm-up" in note
    assert server.what_if(Greedy(), cost=COST).notes == ()


WRONG_COSTS: dict[str, tuple[Any, str]] = {
    "number": (0.01, r"got 0.01; write CostModel\(fixed=0.01\)"),
    "list": ([1], "cost must be a CostModel or a function"),
    "class": (CostModel, "cost must be a CostModel or a function"),
    "text": (lambda lengths: "x", "a cost must be a number of seconds >= 0, got 'x'"),
    "nothing": (lambda lengths: None, "a cost must be a number of seconds >= 0, got None"),
}


@pytest.mark.parametrize("wrong", WRONG_COSTS)
def test_a_value_that_is_no_cost_raises_everywhere(make: Make, wrong: str) -> None:
    """Every function raises the same error."""
    cost, said = WRONG_COSTS[wrong]
    server = make(echo)
    server.predict(["a"] * 5)
    calls: list[Callable[[], object]] = [
        lambda: capacity(Greedy(), cost, 0.1),
        lambda: simulate(Greedy(), Poisson(5), cost, duration=2),
        lambda: simulate(LengthAware(), Poisson(5), cost, duration=2, dispatch="least_work"),
        lambda: compare([Greedy()], cost=cost),
        lambda: plan(Greedy(), cost, 5.0, 0.1),
        lambda: server.what_if(Greedy(), cost=cost),
        lambda: replay(server.records(), Greedy(), cost),
    ]
    for call in calls:
        with pytest.raises(OptionError, match=said):
            call()


def test_a_server_is_no_cost(make: Make) -> None:
    """The error has the call that returns its cost."""
    server: Any = make(echo)
    with pytest.raises(OptionError, match=r"got Server; write server.fit_cost\(\)"):
        capacity(Greedy(), server, 0.1)
    with pytest.raises(OptionError, match="slowdown must be a function"):
        simulate(Greedy(), Poisson(5), COST, slowdown=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rates": 10}, "rates must be a list"),
        ({"rates": "10"}, "rates must be a list"),
        ({"rates": [Poisson(5)]}, "rates must be numbers"),
        ({"server": "http://localhost"}, "server must be a Server"),
        ({"policies": None}, "policies must be a list"),
        ({"policies": 5}, "policies must be a list"),
        ({"duration": 0}, "duration must be a number of seconds > 0, got 0"),
        ({"lengths": ["a b"]}, r"lengths\[0\] must be a whole number"),
    ],
)
def test_an_invalid_comparison_raises(options: dict[str, Any], said: str) -> None:
    """The error names the option."""
    given: dict[str, Any] = {"policies": [Greedy()], "cost": COST, "rates": [5], **options}
    with pytest.raises(OptionError, match=said):
        compare(given.pop("policies"), **given)


def test_rates_may_be_any_iterable() -> None:
    """A generator is read once; a text as an objective raises."""
    found = compare([Greedy()], cost=COST, rates=(rate for rate in (5, 10)), duration=2)
    assert [rate for rate, _ in found.reports] == [5, 10]
    with pytest.raises(OptionError, match="objective must be a positive number"):
        found.recommendation("0.1")  # type: ignore[arg-type]


class Broken:
    """A policy whose `decide` returns None."""

    def decide(self, waiting: Sequence[Job], now: float) -> Any:
        """Break the contract."""


def test_a_policy_that_broke_its_contract_is_named_first() -> None:
    """The figures are those of `Greedy`, and each result begins with that."""
    found = compare([Broken(), Greedy(8)], cost=COST, rates=[10], duration=5)
    doubtful = CostModel(fixed=0.01, error=0.69)
    texts = [
        capacity(Broken(), COST, 0.1),
        plan(Broken(), COST, 50.0, 0.1),
        simulate(Broken(), Poisson(5), COST, duration=3),
        found,
        found.recommendation(0.1),
        compare([Broken()], cost=doubtful, rates=[10], duration=5).recommendation(0.1),
    ]
    for text in map(str, texts):
        first = text.splitlines()[0]
        assert first.lower().startswith("policy failed")
        assert "Broken> returned None" in first
        assert "goes on under Greedy" in first
        assert text.count("returned None") == 1
    report = found.reports[0][1]
    assert Report.from_json(report.to_json()).fault == report.fault != ""


@pytest.mark.parametrize("objective", [5.0, 10.0])
def test_a_run_too_short_for_the_objective_says_so(objective: float) -> None:
    """The warning has a sufficient number of requests; with that number it is gone."""
    short = capacity(Greedy(), COST, objective)
    (said,) = short.warnings
    assert "too short for an objective of" in said
    assert said in compare([Greedy()], cost=COST, rates=[5], duration=2).recommendation(objective)
    assert "too short" in plan(Greedy(), COST, 1600.0, objective).warnings[0]
    assert capacity(Greedy(), COST, 0.1).warnings == ()
    enough = int(said.partition("requests=")[2].partition(",")[0])
    long = capacity(Greedy(), COST, objective, requests=enough)
    assert long < 1900 < short
    assert long.warnings == ()


@pytest.mark.parametrize("factor", [0.5, 0, -1, "2", float("nan"), True])
def test_a_factor_is_a_number_from_1_up(factor: Any) -> None:
    """An error of a capacity is not negative."""
    with pytest.raises(OptionError, match="factor must be a number >= 1"):
        Capacity(4.0, factor=factor)


def test_a_capacity_cannot_be_changed() -> None:
    """Its attributes can be read only, and it is copied and pickled with them."""
    found = Capacity(4.0, factor=2.0, warnings=["Doubtful."])
    for name in ("factor", "warnings", "fault"):
        with pytest.raises(AttributeError):
            setattr(found, name, 3)
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (again.factor, again.warnings) == (2.0, ("Doubtful.",))
    with pytest.raises(OptionError, match="warnings must be a list of sentences"):
        Capacity(4.0, warnings="abc")


@pytest.mark.parametrize(
    "options",
    [{"error": -1}, {"warnings": "abc"}, {"largest": -1}, {"batches": 1.5}, {"autocorrelation": 2}],
)
def test_an_invalid_fit_raises(options: dict[str, Any]) -> None:
    """The figures of the fit are checked as the terms are."""
    with pytest.raises(OptionError, match=f"{next(iter(options))} must be"):
        CostModel(fixed=1.0, **options)
    with pytest.raises(OptionError, match="lengths must be >= 0"):
        COST([-1])


@pytest.mark.parametrize("text", ["{}", "[]", "x", None, '{"rate": 5}', "[{}]"])
def test_json_of_something_else_raises(text: Any) -> None:
    """Reading it as a cost model or a report raises."""
    for kind in (CostModel, Report):
        with pytest.raises(OptionError, match=r"a cost model|JSON"):
            kind.from_json(text)


class Unreadable:
    """A policy whose repr raises."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest."""
        return Decision((waiting[0],))


def test_a_policy_whose_repr_raises_is_called_by_its_class(make: Make) -> None:
    """Every display falls back to the name of the class."""
    server = make(echo, policy=Unreadable())
    assert server.predict("a") == "a"
    for text in (repr(server), server._repr_html_(), str(server.stats()), server.stats().policy):
        assert "Unreadable" in text
    assert simulate(Unreadable(), Poisson(5), COST, duration=2).policy == "<Unreadable>"


def test_numbers_of_numpy_are_numbers(make: Make) -> None:
    """A whole number or a time may come from an array."""
    numpy = pytest.importorskip("numpy")
    one = numpy.int64(1)
    server = make(
        *(echo,),
        port=one - 1,
        workers=one,
        threads=one,
        max_queue_size=numpy.int32(9),
        timeout=numpy.float32(20),
    )
    assert server.predict("a", timeout=numpy.float32(20)) == "a"
    assert server.predict("b", timeout=numpy.float64(20)) == "b"
    assert simulate(Greedy(), Poisson(5), COST, replicas=numpy.int64(2), duration=2).replicas == 2


def test_values_are_named_as_the_user_named_them(make: Make) -> None:
    """The error never has the name of an internal part."""
    for concurrency in (1.5, 0, "4"):
        with pytest.raises(OptionError, match="concurrency must be a whole number"):
            load_test(make(echo), ["a"], concurrency=concurrency)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="requests must be a whole number >= 1, got 0"):
        capacity(Greedy(), COST, 0.1, requests=0)
    with pytest.raises(OptionError, match="`take` must be a tuple of jobs"):
        Decision(take=5)  # type: ignore[arg-type]


def test_parts_of_a_list_of_records_are_tables_too(make: Make) -> None:
    """A type checker, which reads this file, agrees."""
    server = make(echo)
    server.predict(["a", "b"])
    pytest.importorskip("pandas")
    frames = [server.records()[0:1].to_frame(), server.batches()[0:1].to_frame()]
    assert [len(frame) for frame in frames] == [1, 1]
    assert len(server.errors()[:3].to_frame()) == 0
