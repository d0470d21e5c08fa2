"""Checks of options: each raises `OptionError` with the option, its value and a remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..display import without_addresses
from ..errors import OptionError

#: form of a name or an address in a Host header, in lower case
HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")
#: ports that an address leaves out
DEFAULT_PORTS = {"http": 80, "https": 443}
#: most characters of a value in an error
MOST_TEXT = 200


def shown(value: Any) -> str:
    """Return a value for an error: shortened if long, without memory addresses."""
    text = without_addresses(repr(value))
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"


# -- numbers and flags ----------------------------------------------------------------------


def check_seconds(
    name: str, value: Any, *, zero: bool = False, endless: bool = False, none: bool = False
) -> None:
    """Raise unless `value` is a positive number; the flags allow 0, infinity and None as well."""
    if value is None and none:
        return
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number and (value > 0 or (zero and value == 0)) and (endless or value < math.inf):
        return
    kind = "a number of seconds >= 0" if zero else "a positive number of seconds"
    raise OptionError(f"{name} must be {kind}, got {shown(value)}")


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number from `low` to `high` as an `int`; numpy's integers are allowed."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not low <= int(value) <= high:
        raise OptionError(f"{name} must be a whole number from {low} to {high}, got {shown(value)}")
    return int(value)


def check_flags(**flags: Any) -> None:
    """Raise for a value that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise OptionError(f"{name} must be True or False, got {shown(value)}")


# -- addresses and secrets ------------------------------------------------------------------


def check_host(host: Any) -> None:
    """Raise for a value that is no address to listen on."""
    if not isinstance(host, str) or not host.strip():
        hint = f"; write port={host}" if isinstance(host, int) else ", such as '127.0.0.1'"
        raise OptionError(f"host must be an address as a text, got {shown(host)}{hint}")
    if "://" in host:
        raise OptionError(f"host must be an address without a scheme, got {host!r}")
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        raise OptionError(
            f"host must be an address without a port, got {host!r}; "
            f"write host={name.strip('[]')!r}, port={port}"
        )


def check_token(token: Any) -> None:
    """Raise for a token that does not fit into a header; the error leaves the secret out."""
    if token is None:
        return
    if not (isinstance(token, str) and token):
        kind = "an empty one" if token == "" else type(token).__name__
        raise OptionError(f"token must be a string that is not empty, got {kind}")
    flaw = "white space at an end" if token.strip() != token else "a control character"
    if token.strip() != token or not token.isprintable():
        raise OptionError(
            f"token must fit into a header, because clients send it in one; got one with {flaw}; "
            "write token=token.strip(), or secrets.token_urlsafe() makes one"
        )


def check_hosts(values: Any) -> tuple[str, ...]:
    """Return the names of ``allow_hosts`` in the form of a Host header, without ports."""
    return _map_strings("allow_hosts", values, _host)


def check_origins(values: Any) -> tuple[str, ...]:
    """Return the origins of ``allow_origins`` in the form of an Origin header."""
    return _map_strings("allow_origins", values, _origin)


def _map_strings(name: str, values: Any, read: Callable[[str], str]) -> tuple[str, ...]:
    several = isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping))
    given = list(values) if several else []
    if not several or not all(isinstance(value, str) for value in given):
        hint = f"; write {name}=[{shown(values)}]" if isinstance(values, str) else ""
        raise OptionError(f"{name} must be a list of strings, got {shown(values)}{hint}")
    return tuple(map(read, given))


def _host(text: str) -> str:
    if "://" in text:
        host = _split(text).hostname or "models.example.org"
        raise OptionError(
            f"allow_hosts must be names without a scheme, got {text!r}; write {host!r}"
        )
    name = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    found = _split(f"//{name}" if name.count(":") < 2 or "]" in name else f"//[{name}]")
    host = _ascii(found.hostname)
    if not HOST.fullmatch(host) or found.path or found.query or found.fragment or "@" in text:
        raise OptionError(
            f"allow_hosts must be names of hosts, such as 'models.example.org', got {text!r}"
        )
    return host


def _origin(text: str) -> str:
    if text == "null":  # what a browser sends for a page that is a local file
        return text
    found = _split(text)
    if "://" not in text and HOST.fullmatch(text.lower().partition(":")[0]):
        raise OptionError(f"allow_origins needs a scheme, got {text!r}; write 'https://{text}'")
    host, port = _ascii(found.hostname), _port(found)
    if not found.scheme or not HOST.fullmatch(host):
        raise OptionError(
            f"allow_origins must be origins, such as 'https://example.org', got {text!r}"
        )
    origin = f"{found.scheme}://{host}" + (f":{port}" if port else "")
    if found.path not in ("", "/") or found.query or found.fragment or "@" in found.netloc:
        raise OptionError(
            f"allow_origins must be a scheme and a host only, got {text!r}; write {origin!r}"
        )
    return origin


def _split(text: str) -> SplitResult:
    try:
        found = urlsplit(text)
        found.port  # noqa: B018 - raises for an invalid port
    except ValueError:
        return urlsplit("")
    return found


def _port(found: SplitResult) -> int | None:
    return None if found.port == DEFAULT_PORTS.get(found.scheme) else found.port


def _ascii(host: str | None) -> str:
    """Return a host as a browser sends it; empty for None and for an invalid name."""
    try:
        name = (host or "").encode("idna").decode("ascii").lower()
    except UnicodeError:
        return ""
    return f"[{name}]" if ":" in name else name
