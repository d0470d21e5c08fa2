"""Policies from text: from a command line, or from a `repr`."""

from __future__ import annotations

from ..validation.tracebacks import entry_point
from . import learned_policies as learning
from . import policies, policy_registry
from .policies import Policy

__all__ = ["BUILT_IN", "learning", "parse_policy", "policies"]

#: the built-in policies by name; importing `policies` and `learned_policies` registers them
BUILT_IN: dict[str, type[Policy]] = policy_registry.KINDS


@entry_point
def parse_policy(text: str) -> Policy:
    """Return a policy from its ``repr``, such as ``"Window(max_batch_size=8)"`` or ``"Greedy"``.

    Only literals are read, nothing is evaluated. Raises `OptionError` for anything else.
    """
    policy: Policy = policy_registry.parse_policy(text)
    return policy
