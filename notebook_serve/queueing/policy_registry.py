"""The built-in policies by name: their options, and their text form."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, TypeVar

from ..display import safe_repr
from ..errors import FrozenPolicy, OptionError, UnknownAttribute, WrongCall
from ..validation.option_hints import POLICY, suggest, suggest_spelling

T = TypeVar("T")

#: the built-in policies by name; `built_in` adds each where it is defined
KINDS: dict[str, Any] = {}


def built_in(kind: type[T]) -> type[T]:
    """Register the policy `kind`, a dataclass, by its name, and explain wrong options."""
    KINDS[kind.__name__] = kind
    init, set_attribute = _wrap_init(kind), _wrap_setattr(kind)
    kind.__init__, kind.__setattr__ = init, set_attribute  # type: ignore[method-assign]
    return kind


def options_of(kind: Any) -> list[str]:
    """Return the names of the options of a built-in policy."""
    return [field.name for field in fields(kind) if field.init]


def _wrap_init(kind: Any) -> Callable[..., None]:
    make, known = kind.__init__, options_of(kind)

    @functools.wraps(make)
    def init(self: Any, *args: Any, **options: Any) -> None:
        __tracebackhide__ = True
        for name in options.keys() - set(known):
            raise WrongCall(unknown_option(kind, name, options[name]))
        if len(args) > len(known):
            raise WrongCall(_too_many(kind, len(args)))
        make(self, *args, **options)
        if type(self) is kind:
            vars(self)["_complete"] = True

    return init


def _wrap_setattr(kind: Any) -> Callable[[Any, str, Any], None]:
    change, known = kind.__setattr__, options_of(kind)

    def set_attribute(self: Any, name: str, value: Any) -> None:
        __tracebackhide__ = True
        if type(self) is not kind or name.startswith("_") or not vars(self).get("_complete"):
            change(self, name, value)
        elif name in known:
            another = replace(self, **{name: value})
            raise FrozenPolicy(
                f"a policy cannot be changed; set a new one: server.policy = {another!r}"
            )
        else:
            raise UnknownAttribute(unknown_option(kind, name, value))

    return set_attribute


def unknown_option(kind: Any, name: str, value: Any) -> str:
    """Return the error message for an option that the policy `kind` does not have."""
    known = options_of(kind)
    # Another policy may have the option, by this name or another.
    written = suggest(
        {**{own: f"{own}={{value}}" for own in _all_options()}, **POLICY}, name, value
    )
    right = written.partition("=")[0]
    if right in known:
        hint = f"write {kind.__name__}({written})"
    elif written:
        others = [other for other, it in sorted(KINDS.items()) if right in options_of(it)]
        hint = f"{' and '.join(others)} have it, such as {others[-1]}({written})"
        hint = hint.replace(" have it", " has it") if len(others) == 1 else hint
    else:
        hint = suggest_spelling(name, known)
    return f"{kind.__name__} has no option `{name}`; {hint}"


def _all_options() -> set[str]:
    return {name for kind in KINDS.values() for name in options_of(kind)}


def _too_many(kind: Any, given: int) -> str:
    known = ", ".join(options_of(kind))
    takes = f"its options are {known}" if known else "it has no options"
    return f"{kind.__name__} got too many arguments, {given}; {takes}"


# -- conversion -----------------------------------------------------------------------------


def as_policy(given: Any) -> Any:
    """Return the policy that `given` is or stands for: an object, a class or a text.

    A class is called without arguments, and a text read by `parse_policy`. Raises `OptionError`,
    with what to write, for anything else.
    """
    if isinstance(given, str):
        return parse_policy(given)
    if getattr(given, "_is_protocol", False):
        raise OptionError(
            f"{given.__name__} is the protocol of all policies; write one such as "
            "Greedy(max_batch_size=8), or a class with decide(waiting, now)"
        )
    if isinstance(given, type) and callable(getattr(given, "decide", None)):
        return _instance(given)
    if not isinstance(given, type) and callable(getattr(given, "decide", None)):
        return given
    raise OptionError(
        "a policy must be an object with decide(waiting, now), "
        f"got {safe_repr(given)}; write one such as Greedy(max_batch_size=8)"
    )


def as_policies(given: Any) -> tuple[Any, ...]:
    """Return the policies of a list, each converted by `as_policy`."""
    one = isinstance(given, (str, type)) or callable(getattr(given, "decide", None))
    if one or not isinstance(given, Iterable):
        raise OptionError(
            f"policies must be a list, such as [NoBatching(), Greedy(8)], got {safe_repr(given)}"
        )
    return tuple(map(as_policy, given))


def _instance(kind: Any) -> Any:
    try:
        signature = inspect.signature(kind)
        signature.bind()
    except (TypeError, ValueError):
        wanted = ", ".join(_required(kind)) or "..."
        raise OptionError(
            f"{kind.__name__} is a class and needs arguments; write {kind.__name__}({wanted})"
        ) from None
    return kind()


def _required(kind: Any) -> list[str]:
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        f"{item.name}=..."
        for item in parameters
        if item.default is item.empty and item.kind not in several
    ]


def parse_policy(text: str) -> Any:
    """Return a policy from its ``repr``, such as ``"Window(max_batch_size=8)"`` or ``"Greedy"``.

    Only literals are read, nothing is evaluated. Raises `OptionError` for anything else.
    """
    if not isinstance(text, str):
        raise OptionError(
            f"the text of a policy must be a string such as 'Greedy(8)', got {safe_repr(text)}"
        )
    try:
        return _policy_of(ast.parse(text.strip(), mode="eval").body)
    except OptionError:
        raise
    except (KeyError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise _unknown_policy(text) from error


def _unknown_policy(text: str) -> OptionError:
    """Return the error for a text that is not a policy."""
    name = text.strip().partition("(")[0]
    hint = "" if name in KINDS else suggest_spelling(name, KINDS)
    near = f"{hint} Or " if hint.startswith("did") else ""
    known = ", ".join(sorted(KINDS))
    return OptionError(
        f"{text!r} is not a policy; {near}write one of {known}, with its numbers: Window(8, 0.01)"
    )


def _policy_of(node: ast.expr) -> Any:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    kind = KINDS[ast.unparse(call.func)]
    if any(item.arg is None for item in call.keywords):
        raise OptionError(f"{ast.unparse(node)!r} has options after **; write each as name=value")
    arguments = [_option_of(argument) for argument in call.args]
    named = {str(item.arg): _option_of(item.value) for item in call.keywords}
    if len(named) < len(call.keywords):
        raise OptionError(f"{ast.unparse(node)!r} repeats an option; leave one out")
    return kind(*arguments, **named)


def _option_of(node: ast.expr) -> Any:
    """Return the value of a literal, or of a nested policy such as the one of `CoDel`."""
    return _policy_of(node) if isinstance(node, (ast.Call, ast.Name)) else ast.literal_eval(node)
