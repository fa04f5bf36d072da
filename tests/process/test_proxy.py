"""The proxy that chaos puts between workers and broker does what it says, and nothing when nothing is asked."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from scripts.proxy import Link, Proxy

DATA = bytes(range(256)) * 40


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that says everything back."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65_536):
                        connection.sendall(data)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy(random.Random(1))
    yield made
    made.close()


def through(link: Link, data: bytes = DATA, timeout_s: float = 20.0) -> bytes:
    """What comes back."""
    with socket.create_connection(("127.0.0.1", link.listens), timeout=timeout_s) as client:
        client.sendall(data)
        back = b""
        while len(back) < len(data):
            piece = client.recv(65_536)
            if not piece:
                break
            back += piece
    return back


def test_nothing_is_changed_when_nothing_is_asked(proxy: Proxy, echo: str) -> None:
    assert through(proxy.link(echo)) == DATA


def test_what_is_late_comes_all_the_same(proxy: Proxy, echo: str) -> None:
    link = proxy.link(echo)
    link.late_s = 0.2
    began_s = time.monotonic()
    assert through(link) == DATA
    assert time.monotonic() - began_s >= 0.4


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_frozen_direction_holds_everything_until_it_thaws(proxy: Proxy, echo: str, way: str) -> None:
    link = proxy.link(echo)
    link.frozen.add(way)
    with pytest.raises(TimeoutError):
        through(link, timeout_s=0.5)
    threading.Timer(0.3, lambda: link.frozen.discard(way)).start()
    assert through(link) == DATA


def test_bytes_are_turned(proxy: Proxy, echo: str) -> None:
    link = proxy.link(echo)
    link.flips = 1.0
    back = through(link)
    assert len(back) == len(DATA) and back != DATA


def test_a_reset_cuts_what_is_open_and_not_what_comes_after(proxy: Proxy, echo: str) -> None:
    link = proxy.link(echo)
    with socket.create_connection(("127.0.0.1", link.listens), timeout=20) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        proxy.reset(link)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert through(link) == DATA
