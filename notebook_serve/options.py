"""Options of a model, and the division of the options of `serve` between model and HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, cast

from .display import duration
from .errors import OptionError, WrongCall
from .http.options import HttpOptions
from .queueing.learned_policies import CostAware
from .queueing.policies import Policy, PolicyLike
from .queueing.policy_registry import as_policy
from .validation.checks import check_flags, check_seconds, check_whole, shown
from .validation.option_hints import unknown_option
from .workers.placement import Kind, Placement


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of `serve` for one model, checked: its policy, its workers, its queue.

    `serve` documents each. Raises `OptionError` for an invalid value.
    """

    #: None becomes ``CostAware()``; a class or a text becomes a policy
    policy: PolicyLike | None = None
    worker: Kind = "thread"
    workers: int | None = None
    devices: Sequence[str] | None = None
    threads: int | None = None
    overtime: float | None = None
    max_queue_size: int = 1000
    refuse_late: bool = True
    timeout: float = 30.0
    #: made of `worker`, `workers`, `devices` and `threads`
    placement: Placement = field(init=False, repr=False)

    def __post_init__(self) -> None:
        placement = Placement.of(self.worker, self.workers, self.devices, self.threads)
        _check_overtime(self.overtime, placement)
        check_flags(refuse_late=self.refuse_late)
        check_seconds("timeout", self.timeout, endless=True)
        size = check_whole("max_queue_size", self.max_queue_size, 1, 10_000_000)
        policy = as_policy(CostAware() if self.policy is None else self.policy)
        object.__setattr__(self, "placement", placement)
        object.__setattr__(self, "max_queue_size", size)
        object.__setattr__(self, "timeout", float(self.timeout))
        object.__setattr__(self, "policy", policy)

    @property
    def initial_policy(self) -> Policy:
        """Policy that decides until another is set."""
        return cast("Policy", self.policy)  # `__post_init__` made it one

    @property
    def overtime_factor(self) -> float:
        """Factor of `overtime`; infinite without one."""
        return math.inf if self.overtime is None else float(self.overtime)

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of a server's card: each setting and its value, in words."""
        return [
            ("workers", str(self.placement)),
            ("queue limit", f"{self.max_queue_size} requests"),
            ("timeout", "none" if self.timeout == math.inf else duration(self.timeout)),
            ("late requests", "rejected immediately" if self.refuse_late else "queued"),
        ]


def _check_overtime(overtime: Any, placement: Placement) -> None:
    if overtime is None:
        return
    if placement.kind == "thread":
        raise OptionError("a thread cannot be killed; overtime needs worker='process'")
    number = isinstance(overtime, Real) and not isinstance(overtime, bool)
    if not (number and 1 <= overtime < math.inf):
        raise OptionError(f"overtime must be a number >= 1, got {shown(overtime)}")


def _names(kind: Any) -> tuple[str, ...]:
    return tuple(item.name for item in fields(kind) if item.init)


#: options of a model, which `serve` and `add` take
MODEL_OPTIONS = _names(ModelOptions)
#: options of HTTP, which only `serve` takes
HTTP_OPTIONS = _names(HttpOptions)


def split_options(caller: str, options: Mapping[str, Any]) -> tuple[ModelOptions, HttpOptions]:
    """Divide the options given to `caller` between the model and HTTP.

    Raises `WrongCall` for a name that neither has, and `OptionError` for an invalid value.
    """
    known = (*MODEL_OPTIONS, *HTTP_OPTIONS)
    for name, value in options.items():
        if name not in known:
            raise WrongCall(unknown_option(caller, name, value, known))
    model = {name: value for name, value in options.items() if name in MODEL_OPTIONS}
    http = {name: value for name, value in options.items() if name in HTTP_OPTIONS}
    return ModelOptions(**model), HttpOptions(**http)
