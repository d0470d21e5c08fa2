from __future__ import annotations

import math

import pytest

from notebook_serve.queueing.policy_history import (
    MOST_LISTED,
    policies_between,
    policies_in_words,
    policy_at,
)
from notebook_serve.records import PolicyChange

CHANGES = [
    PolicyChange(10.0, "A()", "start"),
    PolicyChange(12.0, "B()"),
    PolicyChange(13.0, "B()"),
    PolicyChange(14.0, "A()"),
    PolicyChange(15.0, "C()", "fault"),
]


@pytest.mark.parametrize(
    ("start", "end", "first", "during"),
    [
        (10.0, 11.0, "A()", []),
        (11.0, 13.5, "A()", [(1.0, "B()")]),
        (12.0, 14.0, "B()", [(2.0, "A()")]),
        (12.5, 13.5, "B()", []),
        (9.0, 12.0, "", [(1.0, "A()"), (3.0, "B()")]),
        (11.0, math.inf, "A()", [(1.0, "B()"), (3.0, "A()"), (4.0, "C()")]),
        (99.0, 99.0, "C()", []),
    ],
)
def test_policies_of_a_stretch_of_time(
    start: float, end: float, first: str, during: list[tuple[float, str]]
) -> None:
    """The result is the policy in effect at the start, and the changes after it."""
    found, changes = policies_between(CHANGES, start, end)

    assert found == first
    assert [(change.at, change.policy) for change in changes] == during


def test_a_fault_is_still_one_in_a_stretch() -> None:
    """The reason of a change is kept."""
    _, changes = policies_between(CHANGES, 14.5, 16.0)

    assert [change.reason for change in changes] == ["fault"]


def test_the_policy_at_a_time() -> None:
    """From the moment of a change on, the new policy is in effect."""
    changes = [PolicyChange(1.0, "B()"), PolicyChange(2.0, "C()")]

    assert [policy_at("A()", changes, at) for at in (0.0, 0.9, 1.0, 1.5, 2.0, 9.0)] == [
        "A()", "A()", "B()", "B()", "C()", "C()",
    ]  # fmt: skip
    assert policy_at("A()", [], 5.0) == "A()"


def test_policies_in_words() -> None:
    """Each policy has the time of its end; the successor of a failed policy says so."""
    changes = [PolicyChange(2.1, "B()"), PolicyChange(3.0, "C()", "fault")]

    assert policies_in_words("A()", []) == "A()"
    assert policies_in_words("A()", changes) == (
        "A() until 2.10 s, then B() until 3.00 s, then C() (the previous policy failed)"
    )


def test_many_policies_are_counted() -> None:
    """Of many changes, the first two and the last two are named."""
    changes = [PolicyChange(float(n), f"P{n}()") for n in range(1, MOST_LISTED + 2)]

    assert policies_in_words("P0()", changes) == (
        "P0() until 1.00 s, then P1() until 2.00 s, then 3 others, "
        "then P5() until 6.00 s, then P6()"
    )
