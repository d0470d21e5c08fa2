"""A listening socket, bound by the caller: its port is known at once, and errors raise there."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from ...errors import OptionError, PortTaken

#: port to listen on if none is given and this one is free
USUAL_PORT = 8000


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening TCP socket on `host`.

    If `port` is None, port 8000 is used, or any free port if that one is in use. Port 0 means any
    free port. Raises `PortTaken` if the given port is in use, and `OptionError` if `host` is not an
    address of this machine.
    """
    family, address = resolve(host)
    try:
        return _bind(family, address, USUAL_PORT if port is None else port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and port is None:
            return _bind(family, address, 0)
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} on {host} is in use; stop the program that listens there, give "
                "another port, or leave port out to get a free one"
            ) from error
        raise OptionError(f"cannot listen on {host}, port {port}: {error}") from error


def resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """Return the address family and the numeric address of `host`.

    Raises `OptionError` if the name cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise OptionError(f"host {host!r} cannot be resolved: {error}") from error
    family, _, _, _, address = found[0]
    return family, str(address[0])


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach `host`."""
    return ipaddress.ip_address(resolve(host)[1].partition("%")[0]).is_loopback


def _bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # The protocol must be named: event loops enable TCP_NODELAY only for sockets that say
    # IPPROTO_TCP. Without it each keep-alive response waits ~40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        # From here on the kernel queues connections, before the server accepts them.
        sock.listen(2048)
    except BaseException:
        sock.close()
        raise
    return sock
