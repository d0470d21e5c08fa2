"""Policies from text: what a command line says, or a `repr`."""

from __future__ import annotations

import ast
from typing import Any

from .errors import OptionError
from .learning import Adaptive, CostAware
from .policies import CoDel, Greedy, LengthAware, NoBatching, Policy, ResettingWindow, Window

BUILT_IN: dict[str, type[Policy]] = {
    policy.__name__: policy
    for policy in (
        Adaptive,
        CoDel,
        CostAware,
        Greedy,
        LengthAware,
        NoBatching,
        ResettingWindow,
        Window,
    )
}


def parse_policy(text: str) -> Policy:
    """A policy from its ``repr``, such as ``"Window(max_batch_size=8)"`` or just ``"Greedy"``.

    Only literals are read, nothing is evaluated. Raises `OptionError` for anything else.
    """
    try:
        return _policy_of(ast.parse(text.strip(), mode="eval").body)
    except OptionError:
        raise
    except (KeyError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        known = ", ".join(sorted(BUILT_IN))
        raise OptionError(
            f"{text!r} is no policy; give one of {known}, with its numbers: Window(8, 0.01)"
        ) from error


def _policy_of(node: ast.expr) -> Policy:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    kind = BUILT_IN[ast.unparse(call.func)]
    arguments = [_option_of(argument) for argument in call.args]
    named = {str(item.arg): _option_of(item.value) for item in call.keywords}
    if len(named) < len(call.keywords):
        raise ValueError("an option is given twice")
    return kind(*arguments, **named)


def _option_of(node: ast.expr) -> Any:
    """A literal, or a policy around which another stands."""
    return _policy_of(node) if isinstance(node, (ast.Call, ast.Name)) else ast.literal_eval(node)
