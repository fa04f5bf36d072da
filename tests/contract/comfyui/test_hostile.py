"""Answers no ComfyUI should give: each ends as one typed error, in time, within the caps."""

import itertools
import json
import select
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from comfyui.client import ComfyClient
from comfyui.errors import ComfyFailed, ComfyLost, ComfyRejected, ComfyUnreachable
from comfyui.http import REPLY_BYTES
from comfyui.messages import Message, Preview, Status, Unknown
from comfyui.outputs import OutputFile
from comfyui.replies import Absent
from comfyui.ws import FRAMES_AT_ONCE
from tests.contract.comfyui.driving import model_free, until
from tests.contract.comfyui.hostile import USUAL, Answer, Hostile, answer, frame, http, says, stay

#: For calls that must give up.
LIMIT_S = 0.3
#: For calls that are answered, on however busy a machine.
AMPLE_S = 8.0
#: A busy machine takes its time; what is not held by the limit never ends.
SLACK_S = 10.0
STATUS = json.dumps({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}).encode()
FILE = OutputFile("9", "images", "a.png", "", "output")
TEXT, BINARY, CLOSE, PING, CONT = 1, 2, 8, 9, 0


@contextmanager
def facing(server: Hostile, limit_s: float = AMPLE_S) -> Iterator[ComfyClient]:
    client = ComfyClient(server.url, client_id="c", limit_s=limit_s)
    try:
        yield client
    finally:
        client.close()


def trickle(data: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        for byte in itertools.cycle(data):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return send


def endless(head: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(bytes(1 << 20))

    return send


CALLS: dict[str, Callable[[ComfyClient], object]] = {
    "connect": lambda client: client.connect(),
    "system_stats": lambda client: client.system_stats(),
    "features": lambda client: client.features(),
    "object_info": lambda client: client.object_info(),
    "queue": lambda client: client.queue(),
    "history": lambda client: client.history("p"),
    "find": lambda client: client.find("p"),
    "dequeue": lambda client: client.dequeue("p"),
    "interrupt": lambda client: client.interrupt("p"),
    "free": lambda client: client.free(),
    "submit": lambda client: client.submit(model_free(), str(uuid.uuid4())),
    "upload": lambda client: client.upload("a.png", b"x"),
    "has_input": lambda client: client.has_input("a.png"),
    "view": lambda client: list(client.view(FILE, limit_bytes=1 << 20)),
}
SLOW: dict[str, Answer] = {
    "says nothing": stay,
    "trickles a first line": trickle(b"X-A: b"),
    "trickles headers": trickle(b"HTTP/1.1 200 OK\r\n"),
    "stalls in the body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", then=stay),
    "an endless header": endless(b"HTTP/1.1 200 OK\r\nX-Endless: "),
}
SHORT: dict[str, Answer] = {
    "hangs up": says(),
    "cut short": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
    "no HTTP": b"\0\1\2\3 no HTTP at all\r\n\r\n",
    "500": http(b"", "500 Internal Server Error"),
    "503": http(b"", "503 Service Unavailable"),
    "401": http(b"", "401 Unauthorized"),
    "a redirect": http(b"", "302 Found", Location="http://127.0.0.1:1/"),
    "compressed unasked": http(b"\x1f\x8b", Content_Encoding="gzip"),
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "a huge length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
}


def ends_in_time(client: ComfyClient, call: str) -> None:
    began = time.monotonic()
    with pytest.raises((ComfyUnreachable, ComfyLost, ComfyFailed)) as caught:
        CALLS[call](client)
    assert time.monotonic() - began < LIMIT_S + SLACK_S
    assert 20 < len(str(caught.value)) < 1000


@pytest.mark.parametrize("call", ["system_stats", "find", "submit", "upload", "view"])
@pytest.mark.parametrize("kind", SLOW)
def test_a_slow_server_holds_nobody(kind: str, call: str) -> None:
    with Hostile({"/": SLOW[kind]}) as server, facing(server, LIMIT_S) as client:
        ends_in_time(client, call)


@pytest.mark.parametrize("kind", SHORT)
def test_every_call_ends_as_one_of_our_errors(kind: str) -> None:
    for call in CALLS:
        if (kind, call) not in HARMLESS:
            with Hostile({"/": SHORT[kind]}) as server, facing(server, LIMIT_S) as client:
                ends_in_time(client, call)


#: Answers whose body does not matter to the call, so that it believes the status.
HARMLESS = {(kind, "has_input") for kind in ("cut short", "a bad chunk", "a huge length", "compressed unasked")}


def test_nothing_listens() -> None:
    client = ComfyClient("http://127.0.0.1:1", client_id="c", limit_s=LIMIT_S)
    for call in CALLS.values():
        with pytest.raises((ComfyUnreachable, ComfyLost), match=r"127\.0\.0\.1:1"):
            call(client)
    client.close()


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b"7", b"{}", b"\xff", b"[" * 99_999, b'{"p":7}'])
@pytest.mark.parametrize("call", ["system_stats", "queue", "submit", "upload"])
def test_an_answer_that_is_none_of_comfyuis(call: str, body: bytes) -> None:
    routes = {**USUAL, "/": http(body), "/system_stats": http(body), "/queue": http(body)}
    with Hostile(routes) as server, facing(server) as client:
        ends_in_time(client, call)


def test_an_answer_without_end_is_cut_off() -> None:
    flood = endless(b"HTTP/1.1 200 OK\r\n\r\n")
    with Hostile({"/": flood}) as server, facing(server) as client:
        with pytest.raises(ComfyUnreachable, match=rf"limit of {REPLY_BYTES}|no answer"):
            client.object_info()
        with pytest.raises(ComfyFailed, match="over the limit of 1048576 bytes"):
            list(client.view(FILE, limit_bytes=1 << 20))
    announced = Hostile({"/": http(b"", Content_Length=str(1 << 40))})
    with announced as server, facing(server) as client, pytest.raises(ComfyFailed, match="limit"):
        next(client.view(FILE, limit_bytes=1 << 20))


def test_a_question_about_a_file_is_answered_however_large_the_file_is() -> None:
    size_bytes = REPLY_BYTES + 1
    large = f"HTTP/1.1 200 OK\r\nContent-Length: {size_bytes}\r\n\r\n".encode()
    with Hostile({"/view": large}) as server, facing(server) as client:
        assert client.has_input("a.mp4", size_bytes) and not client.has_input("a.mp4", size_bytes - 1)
        assert server.connections == 1
    unsized = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Hostile({"/view": unsized}) as server, facing(server) as client:
        assert client.has_input("a.mp4", size_bytes)


def test_a_redirect_is_not_followed() -> None:
    with Hostile({"/": answer({})}) as target:
        moved = http(b"", "307 Temporary Redirect", Location=f"{target.url}/latest/meta-data")
        with Hostile({"/": moved}) as server, facing(server) as client:
            for call in CALLS.values():
                with pytest.raises((ComfyUnreachable, ComfyLost)):
                    call(client)
        assert target.heard == []


def test_a_download_that_is_cut() -> None:
    cut = says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
    with Hostile({"/view": cut}) as server, facing(server) as client, pytest.raises(ComfyUnreachable):
        list(client.view(FILE, limit_bytes=1000))


@pytest.mark.parametrize("status", ["404 Not Found", "400 Bad Request", "403 Forbidden"])
def test_a_download_that_is_gone(status: str) -> None:
    routes = {"/view": http(b"", status)}
    gone = pytest.raises(ComfyFailed, match=r"no longer has 'a\.png'")
    with Hostile(routes) as server, facing(server) as client, gone:
        list(client.view(FILE, limit_bytes=1000))


def test_no_proxy_no_origin_and_no_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hostile({"/": answer({})}) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        cookie = http(b'{"queue_running":[],"queue_pending":[]}', Set_Cookie="a=b")
        with Hostile({**USUAL, "/queue": cookie, "/ws": stay}) as server, facing(server) as client:
            client.queue()
            client.queue()
            client.connect()
            heads = "\n".join(server.heard).lower()
            assert "get /ws?clientid=c " in heads and "get /queue " in heads
            assert "\norigin:" not in heads and "\ncookie:" not in heads and "sec-fetch" not in heads
        assert proxy.heard == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no reason"),
        (b"<html>", "no reason"),
        (b"[]", "no reason"),
        (b'{"error":"Invalid prompt"}', "Invalid prompt"),
        (b'{"error":{"type":7,"message":[]},"node_errors":7}', "no reason"),
        (
            json.dumps({"error": {"type": "x", "message": "\x1b[31m" + "y" * 10_000_000}, "node_errors": {}}).encode(),
            "yyy",
        ),
        (
            json.dumps(
                {"error": {}, "node_errors": {str(n): {"errors": [{"message": "z"}] * 99} for n in range(9999)}}
            ).encode(),
            "node 0: z",
        ),
    ],
)
def test_a_strange_refusal_is_a_refusal(body: bytes, words: str) -> None:
    routes = {**USUAL, "/prompt": http(body, "400 Bad Request")}
    # Patient: megabytes of reasons are read, and this is not about time.
    with Hostile(routes) as server, facing(server, 20.0) as client, pytest.raises(ComfyRejected) as caught:
        client.submit(model_free(), str(uuid.uuid4()))
    assert words in str(caught.value) and len(str(caught.value)) < 20_000 and "\x1b" not in str(caught.value)


def test_too_large_a_workflow_or_file() -> None:
    with Hostile({**USUAL, "/": http(b"", "413 Request Entity Too Large")}) as server, facing(server) as client:
        with pytest.raises(ComfyRejected, match="larger than"):
            client.submit(model_free(), str(uuid.uuid4()))
        with pytest.raises(ComfyRejected, match="larger than"):
            client.upload("a.png", b"x")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error":"Job not found"}'])
def test_a_page_at_the_address_of_the_jobs_api_is_not_one(body: bytes) -> None:
    with Hostile({**USUAL, "/api/jobs": http(body)}) as server, facing(server) as client:
        assert not client.features().atomic_cancel


def test_history_of_somebody_else_is_not_ours() -> None:
    others = {"q": {"outputs": {}, "status": {"status_str": "success"}}}
    with Hostile({**USUAL, "/history": answer(others)}) as server, facing(server) as client:
        assert client.history("p") is None and client.find("p") == Absent()


# ---- the event socket


def heard_from(send: Answer) -> list[Message]:
    """All messages up to the end of the socket."""
    messages: list[Message] = []
    with Hostile({**USUAL, "/ws": send}) as server, facing(server) as client:
        client.connect()

        def ended() -> bool:
            select.select([client.fileno()], [], [], 0.1)
            try:
                messages.extend(client.receive())
            except ComfyUnreachable:
                return True
            return False

        until("the socket ends", ended)
        assert not client.connected
    return messages


def test_messages_before_the_end_are_not_lost() -> None:
    assert heard_from(says(frame(TEXT, STATUS), frame(TEXT, STATUS))) == [Status(1, None)] * 2
    close = frame(CLOSE, (1001).to_bytes(2))
    assert heard_from(says(frame(TEXT, STATUS), close, frame(TEXT, STATUS))) == [Status(1, None)]
    assert heard_from(says(frame(CLOSE, b""))) == []


def test_garbage_is_counted_and_passed_over() -> None:
    garbage = [frame(TEXT, b"\xff\xfe"), frame(TEXT, b"{"), frame(BINARY, b"\0\0"), frame(BINARY, b"\0\0\0\1abcd")]
    routes = {**USUAL, "/ws": says(*garbage, frame(TEXT, STATUS), then=stay)}
    with Hostile(routes) as server, facing(server) as client:
        client.connect()
        assert until("a message", client.receive) == [Status(1, None)]
        assert client.garbled == len(garbage)


def test_a_frame_in_flight_is_not_waited_for() -> None:
    picture = b"\0\0\0\1\0\0\0\1\xff\xd8\xff" + bytes(30_000)
    whole = frame(BINARY, picture)
    step = len(whole) // 3 + 1
    sent, returned = threading.Semaphore(0), threading.Semaphore(0)

    def send(connection: socket.socket) -> None:
        for start in range(0, len(whole), step):
            connection.sendall(whole[start : start + step])
            sent.release()
            returned.acquire(timeout=SLACK_S)  # only then goes the next part
        stay(connection)

    with Hostile({**USUAL, "/ws": send}) as server, facing(server) as client:
        client.connect()
        messages: list[Message] = []
        for last in (False, False, True):
            sent.acquire()
            messages = client.receive()
            while last and not messages:
                messages = client.receive()
            assert bool(messages) == last
            returned.release()
        assert messages == [Preview(None, None, "image/jpeg", picture[8:])]


def test_a_frame_of_a_gigabyte_ends_the_socket_unread() -> None:
    huge = b"\x82\x7f" + struct.pack(">Q", 1 << 30)
    assert heard_from(says(frame(TEXT, STATUS), huge, then=stay)) == [Status(1, None)]


def test_fragments_are_joined_under_the_same_caps() -> None:
    parts = [frame(TEXT, STATUS[:9], final=False), frame(PING, b"?"), frame(CONT, STATUS[9:]), frame(CLOSE, b"")]
    assert heard_from(says(*parts, then=stay)) == [Status(1, None)]
    assert heard_from(says(frame(CONT, STATUS))) == []
    assert heard_from(says(frame(TEXT, STATUS, final=False), frame(TEXT, STATUS))) == []

    def endless_fragments(connection: socket.socket) -> None:
        connection.sendall(frame(BINARY, b"", final=False))
        while True:
            connection.sendall(frame(CONT, bytes(1 << 20), final=False))

    assert heard_from(endless_fragments) == []


def test_reserved_opcodes_end_the_socket() -> None:
    assert heard_from(says(frame(TEXT, STATUS), frame(3, b""), then=stay)) == [Status(1, None)]


@pytest.mark.parametrize("one", [frame(PING, b"?"), frame(BINARY, b"\0\0\0\1\0\0\0\1\xff\xd8\xff" + bytes(200_000))])
def test_a_flood_is_taken_in_turns(one: bytes) -> None:
    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(one)

    with Hostile({**USUAL, "/ws": flood}) as server, facing(server) as client:
        client.connect()
        for _ in range(20):
            select.select([client.fileno()], [], [], 1)
            assert len(client.receive()) <= FRAMES_AT_ONCE  # and it returns, though there is always more


def test_unknown_messages_are_handed_over() -> None:
    assert heard_from(says(frame(TEXT, b'{"type":"crystools.monitor","data":{}}'))) == [Unknown("crystools.monitor")]


@pytest.mark.parametrize(
    "refusal", [http(b"", "403 Forbidden"), http(b"", "302 Found", Location="/x"), http(b"{}"), b"no HTTP\r\n\r\n"]
)
def test_a_refused_handshake(refusal: bytes) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(refusal)

    server = Hostile({**USUAL, "/ws": refuse})
    server.shakes_hands = False
    with server, facing(server) as client:
        with pytest.raises(ComfyUnreachable, match="event socket"):
            client.connect()
        assert not client.connected
        with pytest.raises(ComfyUnreachable, match="connect first"):
            client.receive()
        with pytest.raises(ComfyUnreachable, match="connect first"):
            client.fileno()


def test_a_handshake_with_a_cookie_that_is_none() -> None:
    routes = {**USUAL, "/ws": b"HTTP/1.1 302 Found\r\nSet-Cookie: a/b=1\r\nLocation: /x\r\n\r\n"}
    server = Hostile(routes)
    server.shakes_hands = False
    with server, facing(server) as client, pytest.raises(ComfyUnreachable, match="event socket"):
        client.connect()


def test_a_server_that_never_says_goodbye_is_left_in_time() -> None:
    with Hostile({**USUAL, "/ws": stay}) as server, facing(server) as client:
        client.connect()
        began = time.monotonic()
        client.disconnect()
        assert time.monotonic() - began < LIMIT_S + SLACK_S and not client.connected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8188",
        "https://127.0.0.1",
        "http://",
        "ftp://x",
        "http://x/comfy",
        "http://u:p@x",
        "http://x?y=1",
        "http://a..b",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"looks like http://127\.0\.0\.1:8188"):
        ComfyClient(url, client_id="c")


def test_addresses() -> None:
    assert ComfyClient("http://[::1]:8188/", client_id="c").url == "http://[::1]:8188"
    assert ComfyClient("http://gpu-1", client_id="c").url == "http://gpu-1:80"
