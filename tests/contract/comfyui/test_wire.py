"""HTTP over one kept connection: what may be used again, how each kind of body ends, what is not HTTP."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest

from comfyui.errors import ComfyUnreachable
from comfyui.http import Http
from comfyui.wire import PIECE_BYTES, BadAnswer, Connection, Timer
from tests.contract.comfyui.driving import until
from tests.contract.comfyui.hostile import Answer, Hostile, http, says

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT_S = 10.0


def exchange(answer: Answer, method: str = "GET") -> tuple[int, list[bytes], bool]:
    """Status, pieces of the body, and whether the connection could be used again. Raises: BadAnswer."""
    timer = Timer()
    timer.by = time.monotonic() + LIMIT_S
    with Hostile({"/": answer}) as server:
        connection = Connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]), timer)
        try:
            connection.send(method, "/", {"Host": "x"}, None)
            head = connection.head()
            pieces = list(connection.pieces(head))
            return head.status, pieces, connection.idle
        finally:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "body", "idle"),
    [
        (http(b"abc"), b"abc", True),
        (http(b""), b"", True),
        (http(b"abc", Connection="close"), b"abc", False),
        (http(b"abc").replace(b"HTTP/1.1", b"HTTP/1.0"), b"abc", False),
        (says(b"HTTP/1.1 200 OK\r\n\r\nto the end"), b"to the end", False),
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde", True),
        (CHUNKED + b"1\r\na\r\n0\r\nA-Field: after it\r\n\r\n", b"a", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + http(b"abc"), b"abc", True),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", b"a", True),
        (http(b"", "204 No Content"), b"", True),
    ],
)
def test_each_kind_of_body_ends_where_it_should(answer: Answer, body: bytes, idle: bool) -> None:
    _, pieces, found_idle = exchange(answer)
    assert (b"".join(pieces), found_idle) == (body, idle)


def test_the_answer_to_head_has_no_body() -> None:
    assert exchange(http(b"", Content_Length="7"), "HEAD") == (200, [], True)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES - 1])
@pytest.mark.parametrize("chunk", [0, 1_000])
def test_only_the_last_piece_is_small(size: int, chunk: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    parts = [body[at : at + chunk] for at in range(0, size, chunk)] if chunk else []
    chunked = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    _, pieces, idle = exchange(chunked if chunk else http(body))
    assert (b"".join(pieces), idle) == (body, True)
    assert all(len(piece) == PIECE_BYTES for piece in pieces[:-1])
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        CHUNKED + b"3;" + b"x" * 5_000 + b"\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + http(b"abc"),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        says(CHUNKED + b"9\r\nabc"),
        says(b"HTTP/1.1 200 OK\r\n"),
    ],
)
def test_what_is_no_whole_answer_is_refused(answer: Answer) -> None:
    with pytest.raises(BadAnswer):
        exchange(answer)


def silent(address: str, port: int = 0) -> list[socket.socket]:
    """A listener whose queue is full: whoever connects now hears nothing. All of it has to be closed."""
    listener = socket.create_server((address, port), backlog=0)
    waiting = [socket.socket() for _ in range(3)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
    return [listener, *waiting]


@pytest.mark.parametrize("lives", [True, False])
def test_a_host_of_many_addresses_takes_no_longer(lives: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = [f"127.0.0.{place}" for place in range(2, 10)]
    with Hostile({"/": http(b"abc")}) as server, ExitStack() as open_sockets:
        port = int(server.url.rpartition(":")[2])
        for address in dead:
            for one in silent(address, port):
                open_sockets.enter_context(one)
        hosts = [*dead, *(["127.0.0.1"] if lives else [])]
        found: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts]
        found.insert(0, (9_999, socket.SOCK_STREAM, 6, "", ("of a kind that this machine knows nothing of", port)))
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
        client = Http(f"http://many:{port}", limit_s=2.0)
        began_s = time.monotonic()
        if lives:
            assert client.call("GET", "/", by=client.by()).body == b"abc"
        else:
            with pytest.raises(ComfyUnreachable, match="timed out"):
                client.call("GET", "/", by=client.by())
        assert time.monotonic() - began_s < 2.0 * len(dead) - 4.0  # the machine may be busy
        client.close()


def test_a_name_service_that_does_not_answer_holds_nobody_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = [], Event()

    def slow(host: str, port: int, **how: int) -> list[object]:
        if how.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        asked.append(host)
        answers.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", slow)
    calls = Http("http://comfyui-0:8188", limit_s=0.2)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(ComfyUnreachable, match="the name service does not tell the address of comfyui-0"):
            calls.call("GET", "/system_stats", by=calls.by())
    assert time.monotonic() - began < 30
    assert asked == ["comfyui-0"]
    answers.set()
    for _ in range(2):
        with pytest.raises(ComfyUnreachable, match="Temporary failure in name resolution"):
            calls.call("GET", "/system_stats", by=calls.by())
    assert asked == ["comfyui-0"] * 2


def test_calls_share_a_connection() -> None:
    with Hostile({"/": http(b"{}")}) as server:
        client = Http(server.url, limit_s=LIMIT_S)
        for _ in range(3):
            assert client.call("GET", "/", by=client.by()).body == b"{}"
        assert b"".join(client.stream("/", {}, limit_bytes=10)) == b"{}"
        assert server.connections == 1
        client.close()


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\n", b"{}"])
def test_a_connection_with_something_left_on_it_is_not_used_again(more: bytes) -> None:
    """What comes unasked would be read as the next answer."""
    with Hostile({"/": http(b"{}") + more}) as server:
        client = Http(server.url, limit_s=LIMIT_S)
        for _ in range(3):
            assert client.call("GET", "/", by=client.by()).body == b"{}"
        assert server.connections == 3
        client.close()


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    with Hostile({"/": says(http(b"{}"))}) as server:
        client = Http(server.url, limit_s=LIMIT_S)
        for _ in range(3):
            assert client.call("GET", "/", by=client.by()).body == b"{}"
            until("the server has hung up", lambda: server.hung_up == server.connections)
        assert server.connections == 3
        client.close()


def test_a_download_that_nobody_finishes_leaves_nothing_behind() -> None:
    big, small = bytes(5 * PIECE_BYTES), b"{}"
    with Hostile({"/big": http(big), "/": http(small)}) as server:
        client = Http(server.url, limit_s=LIMIT_S)
        pieces = client.stream("/big", {}, limit_bytes=len(big))
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]  # a generator
        assert client.call("GET", "/", by=client.by()).body == small
        client.close()
