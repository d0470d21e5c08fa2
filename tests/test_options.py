"""Options of a model and of HTTP: written once, checked once, divided by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from notebook_serve import CostAware, Greedy, OptionError, Server, WrongCall, serve
from notebook_serve.http.options import HttpOptions
from notebook_serve.options import HTTP_OPTIONS, MODEL_OPTIONS, ModelOptions, split_options

#: what `serve` and `add` take besides options
OTHER = {"served", "model", "loader", "name", "start", "self"}


def wrong(value: Any) -> Any:
    """Return a value of a type that a type checker would reject."""
    return value


# -- one list, one default --------------------------------------------------------------------


def test_serve_and_add_have_the_options_and_no_others() -> None:
    """A new option cannot be forgotten in a signature."""
    assert inspect.signature(serve).parameters.keys() - OTHER == {*MODEL_OPTIONS, *HTTP_OPTIONS}
    assert inspect.signature(Server.add).parameters.keys() - OTHER == {*MODEL_OPTIONS}
    assert not {*MODEL_OPTIONS} & {*HTTP_OPTIONS}


@pytest.mark.parametrize("kind", [ModelOptions, HttpOptions])
def test_the_defaults_of_serve_are_those_of_the_options(kind: Any) -> None:
    """Shift-Tab shows their values."""
    shown = inspect.signature(serve).parameters
    for option in fields(kind):
        if option.init:
            assert shown[option.name].default == option.default
    assert "max_queue_size: 'int' = 1000" in str(inspect.signature(serve))


def test_a_server_made_directly_has_the_same_defaults() -> None:
    """`Server` takes the keywords of `serve`."""
    direct, served = Server(list), serve(list, start=False)
    assert direct.limits == served.limits
    assert direct.policy == served.policy == CostAware()
    assert Server(list, policy="Greedy(3)", timeout=5).limits["timeout"] == 5.0


# -- values -----------------------------------------------------------------------------------


def test_options_are_normalised() -> None:
    """A class or a text becomes a policy, a whole number of seconds a float."""
    assert ModelOptions().initial_policy == CostAware()
    assert ModelOptions(policy=Greedy).initial_policy == Greedy()
    assert ModelOptions(policy="Greedy(3)").initial_policy == Greedy(3)
    assert type(ModelOptions(timeout=2).timeout) is float
    assert ModelOptions(devices=["cpu", "meta"]).placement.workers == 2
    assert ModelOptions().overtime_factor == math.inf
    http = HttpOptions(allow_hosts=["A.example:80"], allow_origins=["https://A.example/"])
    assert http.hosts == ("127.0.0.1", "a.example")
    assert http.allow_origins == ("https://a.example",)


@pytest.mark.parametrize(
    ("host", "given", "expected"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("0.0.0.0", True, True),
        ("127.0.0.1", False, False),
    ],
)
def test_errors_are_sent_on_loopback_unless_set(
    host: str, given: bool | None, expected: bool
) -> None:
    """Their messages may contain what only the owner of the notebook should read."""
    assert HttpOptions(host=host, token="t", expose_errors=given).expose_errors is expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelOptions(timeout=0), "timeout must be a positive number"),
        (lambda: ModelOptions(max_queue_size=0), "max_queue_size must be a whole number"),
        (lambda: ModelOptions(refuse_late=wrong("no")), "refuse_late must be True or False"),
        (lambda: ModelOptions(policy=wrong(3)), "decide"),
        (lambda: ModelOptions(overtime=3), "overtime needs worker='process'"),
        (lambda: ModelOptions(workers=0), "workers"),
        (lambda: HttpOptions(host="0.0.0.0"), "other machines can reach host '0.0.0.0'; give tok"),
        (lambda: HttpOptions(host="no such host"), "no such host"),
        (lambda: HttpOptions(port=70000), "port must be a whole number from 0 to 65535"),
        (lambda: HttpOptions(max_body_size=0), "max_body_size must be a whole number"),
        (lambda: HttpOptions(expose_errors=wrong(1)), "expose_errors must be True or False"),
    ],
)
def test_an_invalid_value_raises_where_the_options_are_made(
    make: Callable[[], object], message: str
) -> None:
    """Nothing else has to check them again."""
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.skipif("sys.platform == 'win32'", reason="there are no process workers")
@pytest.mark.parametrize("overtime", [0.5, -1, math.inf, math.nan, "3", True])
def test_overtime_is_a_finite_factor(overtime: Any) -> None:
    """A forward pass that is killed before its requests' time would never end in time."""
    with pytest.raises(OptionError, match="overtime must be a number >= 1, got"):
        ModelOptions(worker="process", overtime=overtime)
    assert ModelOptions(worker="process", overtime=2).overtime_factor == 2.0


def test_options_cannot_be_changed_and_hide_the_token() -> None:
    """They were checked when they were made; a repr may end in a log."""
    options: Any = HttpOptions(token="s3cret")
    with pytest.raises(FrozenInstanceError):
        options.port = 80
    assert "s3cret" not in repr(options)
    assert "host='127.0.0.1'" in repr(options)


def test_the_rows_of_the_card_are_in_words() -> None:
    """Every setting of the card comes from the options."""
    rows = [*ModelOptions().rows(), *HttpOptions().rows()]
    assert rows == [
        ("workers", "1 thread"),
        ("queue limit", "1000 requests"),
        ("timeout", "30.00 s"),
        ("late requests", "rejected immediately"),
        ("body limit", "10,000,000 bytes"),
        ("token", "none"),
        ("error details", "sent to clients"),
    ]
    rows = ModelOptions(timeout=math.inf, refuse_late=False, workers=2).rows()
    assert [value for _, value in rows] == ["2 threads", "1000 requests", "none", "queued"]
    rows = HttpOptions(token="s3cret", expose_errors=False).rows()[1:]
    assert [value for _, value in rows] == [
        "required; in a browser open /?token=...",
        "hidden from clients",
    ]


# -- division ---------------------------------------------------------------------------------


def test_keywords_are_divided_between_the_model_and_http() -> None:
    """Each option has one owner."""
    model, http = split_options("Server", {"timeout": 5, "port": 0, "workers": 2})
    assert (model.timeout, model.placement.workers, http.port) == (5.0, 2, 0)


def test_an_unknown_keyword_names_the_caller_and_the_option_to_write() -> None:
    """A class shows its own name, not that of its constructor."""
    with pytest.raises(WrongCall, match=r"`Server` has no option `batch_size`; write policy=Gree"):
        Server(list, batch_size=8)
    with pytest.raises(WrongCall, match="`Server` has no option `prot`; did you mean `port`"):
        Server(list, prot=8)
