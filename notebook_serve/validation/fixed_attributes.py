"""Objects with fixed public attributes: setting another one raises an error with a hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UnknownAttribute
from .option_hints import SERVER, short, suggest, suggest_spelling
from .tracebacks import entry_point


class FixedAttributes:
    """Base class: of the public attributes, only properties with a setter can be set."""

    #: for each option that is given only once, the call that takes it, such as ``serve(...``
    _calls: ClassVar[Mapping[str, str]]

    if not TYPE_CHECKING:  # a type checker knows the attributes and reports unknown ones

        @entry_point
        def __setattr__(self, name: str, value: Any) -> None:
            """Set a private attribute or a property; raise `UnknownAttribute` for others."""
            own = getattr(type(self), name, None)
            if name.startswith("_") or getattr(own, "fset", None) is not None:
                object.__setattr__(self, name, value)
                return
            owner = type(self).__name__.lower()
            raise UnknownAttribute(
                f"`{owner}.{name}` cannot be set; {_hint(type(self), owner, name, value)}"
            )


def _hint(kind: type[FixedAttributes], owner: str, name: str, value: Any) -> str:
    calls = kind._calls
    if name in calls:
        written = "'...'" if name == "token" else short(value)
        return f"pass it when it is made: {calls[name]}, {name}={written})"
    if hasattr(kind, name):
        return "it is read-only"
    wanted = suggest(SERVER, name, value)
    option = wanted.partition("=")[0]
    if option == "policy":
        return f"write {owner}.policy = {wanted.removeprefix('policy=')}"
    if option in calls:
        return f"pass it when it is made: {calls[option]}, {wanted})"
    near = suggest_spelling(name, [own for own in dir(kind) if not own.startswith("_")])
    return near if near.startswith("did") else "only its policy can be set"
