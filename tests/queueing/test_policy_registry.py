"""The built-in policies by name, and policies from objects, classes and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from notebook_serve.errors import FrozenPolicy, OptionError, UnknownAttribute, WrongCall
from notebook_serve.queueing.jobs import Decision, Job
from notebook_serve.queueing.policies import CoDel, Greedy, LengthAware, NoBatching, Policy, Window
from notebook_serve.queueing.policy_registry import (
    KINDS,
    as_policies,
    as_policy,
    built_in,
    options_of,
    parse_policy,
)


class Oldest:
    """A policy that is not built in."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest jobs."""
        return Decision(tuple(waiting[: self.size]))


class Sized(Oldest):
    """A policy without a default size."""

    def __init__(self, size: int, *others: int, **options: int) -> None:
        super().__init__(size)


def test_options_are_those_of_the_constructor() -> None:
    """Internal fields, such as those that a policy learns, are not options."""
    assert options_of(Window) == ["max_batch_size", "max_wait"]
    assert options_of(NoBatching) == []
    assert options_of(CoDel) == ["policy", "target", "interval"]


def test_a_class_is_called_without_arguments() -> None:
    """A class stands for its policy with default options, built in or not."""
    assert as_policy(Greedy) == Greedy()
    assert as_policy(Oldest).size == 1


def test_a_text_is_parsed_and_an_object_is_returned_unchanged() -> None:
    """All three forms of a policy are accepted."""
    own = Oldest(3)

    assert as_policy("Window(4, 0.5)") == Window(4, 0.5)
    assert as_policy(own) is own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Sized, r"Sized is a class and needs arguments; write Sized\(size=\.\.\.\)"),
        (Policy, "Policy is the protocol of all policies; write one such as Greedy"),
        (3, "a policy must be an object with decide.* got 3; write one such as"),
        (None, "got None"),
        (len, "a policy must be an object with decide"),
        (dict, "a policy must be an object with decide"),
    ],
)
def test_other_values_are_rejected(given: Any, message: str) -> None:
    """The error says what to write."""
    with pytest.raises(OptionError, match=message):
        as_policy(given)


def test_each_policy_of_a_list_is_converted() -> None:
    """A list may mix objects, classes and texts; any iterable of them is a list."""
    expected = (NoBatching(), Greedy(8), LengthAware())

    assert as_policies([NoBatching, "Greedy(8)", LengthAware()]) == expected
    assert as_policies(iter(expected)) == expected


@pytest.mark.parametrize("given", [Greedy(8), Greedy, "Greedy(8)", 3, None])
def test_one_policy_is_not_a_list(given: Any) -> None:
    """Neither is a number; the letters of a text are not taken for policies."""
    with pytest.raises(OptionError, match="policies must be a list, such as"):
        as_policies(given)


@pytest.fixture
def fresh_kind(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a policy that is registered for one test only."""
    monkeypatch.setattr("notebook_serve.queueing.policy_registry.KINDS", KINDS.copy())

    @built_in
    @dataclass(frozen=True)
    class Every:
        """Take the oldest jobs."""

        size: int = 2

        def decide(self, waiting: Sequence[Job], now: float) -> Decision:
            return Decision(tuple(waiting[: self.size]))

    return Every


def test_a_built_in_policy_can_be_chosen_by_its_name(fresh_kind: Any) -> None:
    """Registering it is enough: its text is parsed like those of the others."""
    assert parse_policy("Every") == fresh_kind()
    assert parse_policy("Every(size=5)") == fresh_kind(5)
    assert as_policy("CoDel(Every(3))") == CoDel(fresh_kind(3))


def test_a_built_in_policy_explains_wrong_options(fresh_kind: Any) -> None:
    """An unknown option, too many arguments, and a change after construction."""
    with pytest.raises(WrongCall, match="Every has no option `sise`; did you mean `size`"):
        fresh_kind(sise=3)
    with pytest.raises(WrongCall, match="Every got too many arguments, 2; its options are size"):
        fresh_kind(1, 2)
    with pytest.raises(FrozenPolicy, match=r"set a new one: server\.policy = .*Every\(size=3\)"):
        fresh_kind().size = 3
    with pytest.raises(UnknownAttribute, match="Every has no option `length`"):
        fresh_kind().length = 3


def test_a_text_that_repeats_an_option_is_rejected() -> None:
    """It is ambiguous."""
    with pytest.raises(OptionError, match="repeats an option"):
        parse_policy("Window(max_wait=1, max_wait=2)")
