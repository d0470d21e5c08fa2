"""Objects whose attributes are fixed: to set another is a mistake, and raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UnknownAttribute
from .option_hints import SERVER, instead, nearest, short
from .tracebacks import entry_point

#: options that are given once
GIVEN = (
    *("max_queue_size", "timeout", "refuse_late", "max_body_size", "token", "expose_errors"),
    *("allow_hosts", "allow_origins", "host", "port", "name", "workers", "worker", "devices"),
    *("overtime", "loader", "model", "threads"),
)
#: how an object of such a class is made
MAKERS = {"Server": "serve(...", "Endpoint": "server.add(..."}


class FixedAttributes:
    """Of its public attributes only properties that have a setter can be set."""

    if not TYPE_CHECKING:  # a type checker knows the attributes, and is to say so

        @entry_point
        def __setattr__(self, name: str, value: Any) -> None:
            """Set a private attribute or a property; raise `UnknownAttribute` for others."""
            own = getattr(type(self), name, None)
            if name.startswith("_") or getattr(own, "fset", None) is not None:
                object.__setattr__(self, name, value)
                return
            raise UnknownAttribute(_sentence(type(self), name, value))


def _sentence(kind: type, name: str, value: Any) -> str:
    said, make = f"`{kind.__name__.lower()}.{name}` cannot be set", MAKERS[kind.__name__]
    if name in GIVEN:
        shown = "'...'" if name == "token" else short(value)
        return f"{said}; give it when it is made: {make}, {name}={shown})"
    if hasattr(kind, name):
        return f"{said}; it is what the {kind.__name__.lower()} says or does"
    wanted = instead(SERVER, name, value)
    if wanted.startswith("policy="):
        return f"{said}; write {kind.__name__.lower()}.policy = {wanted.removeprefix('policy=')}"
    if wanted and not wanted.startswith(("a ", "the ", "serve(", "leave ")):
        return f"{said}; give it when it is made: {make}, {wanted})"
    hint = nearest(name, [own for own in dir(kind) if not own.startswith("_")])
    return f"{said}; {hint if hint.startswith('did') else 'what can be set is its policy'}"
