"""Options of the HTTP side of a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import OptionError
from ..validation.checks import (
    check_flags,
    check_host,
    check_hosts,
    check_origins,
    check_token,
    check_whole,
)
from .transport.sockets import is_loopback


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """Options of `serve` for HTTP, checked: where to listen, which requests to let in.

    `serve` documents each. Raises `OptionError` for an invalid value.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    #: a secret, so the repr leaves it out
    token: str | None = field(default=None, repr=False)
    max_body_size: int = 10_000_000
    #: None becomes True on loopback, and False elsewhere
    expose_errors: bool | None = None
    allow_hosts: Sequence[str] = ()
    allow_origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_host(self.host)
        check_token(self.token)
        local = is_loopback(self.host)
        if not local and self.token is None:
            raise OptionError(
                f"other machines can reach host {self.host!r}; give token='...', which clients "
                "send as Authorization: Bearer ..."
            )
        expose = local if self.expose_errors is None else self.expose_errors
        check_flags(expose_errors=expose)
        port = None if self.port is None else check_whole("port", self.port, 0, 65535)
        size = check_whole("max_body_size", self.max_body_size, 1, 2**40)
        object.__setattr__(self, "expose_errors", expose)
        object.__setattr__(self, "port", port)
        object.__setattr__(self, "max_body_size", size)
        object.__setattr__(self, "allow_hosts", check_hosts(self.allow_hosts))
        object.__setattr__(self, "allow_origins", check_origins(self.allow_origins))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names that a request may name, besides those of loopback."""
        return (self.host, *self.allow_hosts)

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of a server's card: each setting and its value, in words."""
        return [
            ("body limit", f"{self.max_body_size:,} bytes"),
            ("token", "none" if self.token is None else "required; in a browser open /?token=..."),
            ("error details", "sent to clients" if self.expose_errors else "hidden from clients"),
        ]
