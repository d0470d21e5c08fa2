from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from notebook_serve.errors import OptionError
from notebook_serve.queueing import learned_policies as learning
from notebook_serve.queueing import policies
from notebook_serve.queueing.learned_policies import Adaptive, CostAware
from notebook_serve.queueing.policies import (
    CoDel,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Window,
)
from notebook_serve.queueing.policy_parser import BUILT_IN, parse_policy


def test_every_policy_that_ships_can_be_read() -> None:
    """Every class with a `decide` can be read by its name and by its repr; no other name can."""
    found = {
        name
        for module in (policies, learning)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if hasattr(kind, "decide") and kind is not Policy
    }

    assert set(BUILT_IN) == found
    for name, kind in BUILT_IN.items():
        assert parse_policy(name) == kind()
        assert parse_policy(repr(kind())) == kind()


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("Greedy", Greedy()),
        ("  Greedy  ", Greedy()),
        ("Greedy()", Greedy()),
        ("Greedy(4)", Greedy(4)),
        ("Window(8, 0.01)", Window(8, 0.01)),
        ("Window(8, max_wait=1e-3)", Window(8, 0.001)),
        ("Window(max_wait=0)", Window(max_wait=0)),
        ("ResettingWindow", ResettingWindow()),
        ("NoBatching", NoBatching()),
        ("LengthAware(max_tokens=None)", LengthAware()),
        ("CostAware", CostAware()),
        ("CostAware(8)", CostAware(8)),
        ("Adaptive(0.1, max_batch_size=8)", Adaptive(0.1, 8)),
        ("CoDel", CoDel()),
        ("CoDel(CostAware(8), target=0.1)", CoDel(CostAware(8), 0.1)),
        ("CoDel(CoDel(Greedy), 1, 2)", CoDel(CoDel(Greedy()), 1, 2)),
    ],
)
def test_a_policy_is_read_from_its_text(text: str, policy: Policy) -> None:
    """The name is enough, with options by position or by name."""
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "Nothing",
        "greedy",
        "Policy",
        "8",
        "'Greedy'",
        "Window(",
        "Window(8))",
        "Window(8)(9)",
        "Window[8]",
        "Window(8, 0.01, 3)",
        "Window(size=8)",
        "Window(8, max_batch_size=8)",
        "Window(x)",
        "Window(*[8])",
        "Window(**{'max_wait': 1})",
        "Window(max_wait=-1)",
        "Window(4 * 2)",
        "Window([8][0])",
        "Window(f'{8}')",
        "Window(8); Greedy(8)",
        "policy = Window(8)",
        "Greedy() or Window()",
        "lambda: Greedy()",
        "Greedy.__init__",
        "Greedy().decide",
        "Greedy.__class__.__base__()",
        "__import__('os')",
        "__import__('os').system('true')",
        "Greedy(__import__('os').getpid())",
        "Greedy(().__class__.__base__.__subclasses__())",
        "Greedy(max_batch_size=len('xx'))",
        "Window(\0)",
        "Window(Greedy)",
        "CoDel(8)",
        "CoDel(Nothing)",
        "CostAware(_law=None)",
        "CostAware(0)",
        "Adaptive(-1)",
    ],
)
def test_other_values_are_not_policies(text: str) -> None:
    """Anything but a known name with literals raises ``OptionError``, code above all."""
    with pytest.raises(OptionError):
        parse_policy(text)


def test_nothing_is_evaluated(tmp_path: Path) -> None:
    """Code in place of a number is not run."""
    mark = tmp_path / "run"

    with pytest.raises(
        OptionError, match="is not a policy; write one of Adaptive, CoDel, CostAware"
    ):
        parse_policy(f"Greedy(__import__('pathlib').Path({str(mark)!r}).touch())")
    assert not mark.exists()


@pytest.mark.parametrize(
    "text", ["Greedy(" + "-" * 100_000 + "1)", "x" + ".x" * 5000], ids=["minus", "dots"]
)
def test_deep_nesting_is_rejected(text: str) -> None:
    """A text too deep for Python's parser is rejected."""
    with pytest.raises(OptionError):
        parse_policy(text)


def test_a_repeated_option_is_rejected() -> None:
    """Two values for one option raise, as in Python."""
    with pytest.raises(OptionError, match="repeats an option; leave one out"):
        parse_policy("Window(max_wait=1, max_wait=2)")
    with pytest.raises(OptionError, match="write each as name=value"):
        parse_policy("Greedy(**{})")


@pytest.mark.parametrize("given", [None, 8, Greedy, b"Greedy"])
def test_a_value_that_is_not_text_is_rejected(given: Any) -> None:
    """The error has the value, and an example."""
    with pytest.raises(
        OptionError, match=r"the text of a policy must be a string such as 'Greedy\(8\)', got"
    ):
        parse_policy(given)
