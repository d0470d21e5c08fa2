"""A listening socket, bound in the caller: the port is known, a failure raises in the cell."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from ...errors import OptionError, PortTaken

#: where to listen when no port is asked for, if it is free
USUAL_PORT = 8000


def listen(host: str, port: int | None) -> socket.socket:
    """A listening TCP socket on `host`.

    `port` None takes 8000 if that is free, else any free one; 0 takes any free one. Raises
    `PortTaken` if the port that was asked for is in use, `OptionError` if the host is not ours.
    """
    family, address = resolve(host)
    try:
        return _bound(family, address, USUAL_PORT if port is None else port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and port is None:
            return _bound(family, address, 0)
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} on {host} is in use; stop what listens there, give another port, "
                "or leave port out to get a free one"
            ) from error
        raise OptionError(f"cannot listen on {host}, port {port}: {error}") from error


def resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """The address family and the numeric address of `host`; raises `OptionError` if it has none."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise OptionError(f"{host!r} is no host that can be listened on: {error}") from error
    family, _, _, _, address = found[0]
    return family, str(address[0])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    return ipaddress.ip_address(resolve(host)[1].partition("%")[0]).is_loopback


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # The protocol must be named: event loops switch TCP_NODELAY on only for sockets that say
    # IPPROTO_TCP, and without it every keep-alive answer waits ~40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        # From here on the kernel queues connections, before anything accepts them.
        sock.listen(2048)
    except BaseException:
        sock.close()
        raise
    return sock
