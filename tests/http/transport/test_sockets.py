from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from notebook_serve.errors import OptionError, PortTaken, StartError
from notebook_serve.http.transport import sockets
from notebook_serve.http.transport.sockets import USUAL_PORT, is_loopback, listen, resolve

LOCAL = "127.0.0.1"


@contextmanager
def occupied(port: int = 0, host: str = LOCAL) -> Iterator[int]:
    """Yield a port in use."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((host, port))
            other.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not port:
                raise
            yield port
        else:
            yield int(other.getsockname()[1])


def has_ipv6() -> bool:
    """Return True if this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def test_a_client_can_connect_at_once() -> None:
    """The kernel queues connections as soon as `listen` returns."""
    with closing(listen(LOCAL, 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=30) as client:
            accepted, address = server.accept()
            with accepted:
                assert address == client.getsockname()
        assert server.getsockname()[0] == LOCAL


def test_the_protocol_is_named() -> None:
    """The socket names TCP, so event loops disable Nagle's delay."""
    with closing(listen(LOCAL, 0)) as server:
        assert server.proto == socket.IPPROTO_TCP
        assert server.type == socket.SOCK_STREAM
        assert server.family == socket.AF_INET


def test_a_port_that_was_asked_for_is_given() -> None:
    """A given free port is used, also right after another server has closed it."""
    with closing(listen(LOCAL, 0)) as before:
        port = before.getsockname()[1]
        with socket.create_connection((LOCAL, port), timeout=30):
            before.accept()[0].close()
    with closing(listen(LOCAL, port)) as server:
        assert server.getsockname() == (LOCAL, port)


def test_a_taken_port_raises() -> None:
    """`PortTaken` names the port and the host, and says what to do."""
    with occupied() as port, pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1") as caught:
        listen(LOCAL, port)

    assert isinstance(caught.value, StartError)
    assert isinstance(caught.value.__cause__, OSError)
    assert "leave port out" in caught.value.message


def test_a_server_takes_its_port_for_itself() -> None:
    """Two servers never share a port."""
    with closing(listen(LOCAL, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            listen(LOCAL, port)


def test_without_a_port_any_free_one_will_do() -> None:
    """While port 8000 is in use, the default is another free port."""
    assert USUAL_PORT == 8000
    with occupied(8000), closing(listen(LOCAL, None)) as server:
        assert server.getsockname()[1] not in (0, 8000)


def test_without_a_port_the_usual_one_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the usual port is free, it is the default."""
    with occupied() as port:
        pass
    monkeypatch.setattr(sockets, "USUAL_PORT", port)

    with closing(listen(LOCAL, None)) as first, closing(listen(LOCAL, None)) as second:
        assert first.getsockname()[1] == port
        assert second.getsockname()[1] not in (0, port)


def test_port_zero_is_any_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero does not try the usual port first."""
    with occupied() as port:
        pass
    monkeypatch.setattr(sockets, "USUAL_PORT", port)

    with closing(listen(LOCAL, 0)) as server:
        assert server.getsockname()[1] not in (0, port)


@pytest.mark.parametrize(
    "host", ["x" * 64, "fe80::1%no-such-interface", ""], ids=["too long", "no interface", "empty"]
)
def test_a_host_that_does_not_exist_raises(host: str) -> None:
    """A name without an address is an `OptionError` that names it."""
    for ask in (resolve, is_loopback, lambda host: listen(host, 0)):
        with pytest.raises(OptionError, match="cannot be resolved") as caught:
            ask(host)
        assert repr(host) in caught.value.message


@pytest.mark.parametrize("port", [None, 0, 1234])
def test_a_host_that_is_not_ours_raises(port: int | None) -> None:
    """An address of another machine is an `OptionError`."""
    with pytest.raises(OptionError, match=r"cannot listen on 192\.0\.2\.1") as caught:
        listen("192.0.2.1", port)
    assert isinstance(caught.value.__cause__, OSError)


@needs_ipv6
def test_ipv6_is_listened_on() -> None:
    """An IPv6 address works, and a port in use there is reported."""
    with closing(listen("::1", 0)) as server:
        port = server.getsockname()[1]
        assert (server.family, server.proto) == (socket.AF_INET6, socket.IPPROTO_TCP)
        with socket.create_connection(("::1", port), timeout=30):
            server.accept()[0].close()
        with pytest.raises(PortTaken, match=f"port {port} on ::1"):
            listen("::1", port)


def test_a_name_resolves_to_an_address() -> None:
    """``localhost`` resolves to a numeric loopback address with its family."""
    family, address = resolve("localhost")

    assert (family, address) in [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::1"),
    ]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("127.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.1.2.3", False),
        ("192.168.0.7", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("128.0.0.1", False),
    ],
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    """Only loopback addresses are; the address of all interfaces is not."""
    assert is_loopback(host) is loopback


def test_a_failure_leaves_no_socket_open() -> None:
    """A socket that cannot be bound is closed, so there is no `ResourceWarning`."""
    opened: list[socket.socket] = []

    class Watched(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            opened.append(self)

    with occupied() as port, pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Watched)
        with pytest.raises(PortTaken):
            listen(LOCAL, port)

    assert [item.fileno() for item in opened] == [-1]
