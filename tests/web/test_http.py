"""Requests that no browser sends: each gets its exact answer, is carried out at most once, and harms nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from broker.protocol import client
from tests.web.stage import RawConnection, Stage, staged, until
from web import serve
from web.api import site as site_module

BODY = b'{"template":"text-to-image","params":{"prompt":"a"}}'


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    """One web process for all rows: each must leave it as it was."""
    with staged() as stage:
        stage.with_worker()
        yield stage


def head(*lines: str, host: str | None = "127.0.0.1") -> bytes:
    """A request head; with a Host unless told otherwise."""
    named = [lines[0], *([f"Host: {host}"] if host is not None else []), *lines[1:]]
    return ("\r\n".join(named) + "\r\n\r\n").encode("latin-1")


def answers(raw: bytes) -> list[int]:
    """The status of every response in these bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", raw)]


def submits(stage: Stage) -> int:
    return sum(isinstance(asked, client.Submit) for asked in stage.broker.heard)


POST = "POST /api/v1/jobs HTTP/1.1"
TYPE = "Content-Type: application/json"
LENGTH = f"Content-Length: {len(BODY)}"
GET = "GET /healthz HTTP/1.1"
END = "Connection: close"

#: name -> (what is sent, the one status that answers it). The connection is closed after each.
REFUSED: dict[str, tuple[bytes, int]] = {
    "no Host": (head(GET, host=None), 400),
    "empty Host": (head(GET, host=""), 400),
    "a Host with a user": (head(GET, host="a@127.0.0.1"), 400),
    "somebody else's Host": (head(GET, host="evil.example"), 421),
    "two Hosts": (head(GET, "Host: evil.example"), 400),
    "HTTP/0.9": (b"GET /healthz\r\n", 400),
    "HTTP/2.0": (head("GET /healthz HTTP/2.0"), 400),
    "HTTP/1.2": (head("GET /healthz HTTP/1.2"), 400),
    "random bytes": (b"\x00\xff\xfe\x80\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n", 400),
    "a URL of 9 KB": (head(f"GET /{'x' * 9_000} HTTP/1.1"), 414),
    "a header of 70 KB": (head(GET, "X-A: " + "x" * 70_000), 431),
    "5000 headers": (head(GET, *["X-A: a"] * 5_000), 431),
    "length and chunks": (head(POST, TYPE, LENGTH, "Transfer-Encoding: chunked") + BODY, 400),
    "two lengths": (head(POST, TYPE, LENGTH, "Content-Length: 3") + BODY, 400),
    "the same length twice": (head(POST, TYPE, LENGTH, LENGTH) + BODY, 400),
    "length +2": (head(POST, TYPE, "Content-Length: +2") + b"{}", 400),
    "length 1_0": (head(POST, TYPE, "Content-Length: 1_0") + b"{}", 400),
    "length -1": (head(POST, TYPE, "Content-Length: -1"), 400),
    "length abc": (head(POST, TYPE, "Content-Length: abc"), 400),
    "length in two values": (head(POST, TYPE, "Content-Length: 2, 2") + b"{}", 400),
    "another transfer coding": (head(POST, TYPE, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (head("POST /api/v1/jobs HTTP/1.0", TYPE, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "GET with a body": (head(GET, "Content-Length: 2") + b"{}", 400),
    "space before the colon": (head(GET, "X-A : a"), 400),
    "no colon": (head(GET, "X-A"), 400),
    "NUL in a header": (head(GET, "X-A: a\x00b"), 400),
    "a control character in a header": (head(GET, "X-A: a\x0bb"), 400),
    "bare LF": (head(GET).replace(b"\r\n", b"\n"), 400),
    "bare LF inside": (head(GET, "X-A: a\nX-B: b"), 400),
    "a folded header": (head(GET, "X-A: a", " b"), 400),
    "two Authorizations": (head(GET, "Authorization: Bearer a", "Authorization: Bearer b"), 400),
    "two Origins": (head(GET, "Origin: http://127.0.0.1", "Origin: http://evil.example"), 400),
    "two Cookies": (head(GET, "Cookie: a=1", "Cookie: b=2"), 400),
    "TRACE": (head("TRACE / HTTP/1.1"), 405),
    "PUT": (head("PUT /api/v1/jobs HTTP/1.1"), 405),
    "OPTIONS": (head("OPTIONS /api/v1/jobs HTTP/1.1"), 405),
    "CONNECT": (head("CONNECT evil.example:443 HTTP/1.1"), 405),
    "a method in small letters": (head("get /healthz HTTP/1.1"), 400),
    "OPTIONS *": (head("OPTIONS * HTTP/1.1"), 405),
    "an absolute URI": (head("GET http://evil.example/ HTTP/1.1"), 400),
    "a space in the path": (head("GET /a b HTTP/1.1"), 400),
    "NUL in the path": (head("GET /a%00b HTTP/1.1"), 400),
    "CR LF in the path": (head("GET /a%0d%0aSet-Cookie:x HTTP/1.1"), 400),
    "an upgrade with a body": (
        head("POST /api/v1/events HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Content-Length: 4")
        + b"abcd",
        400,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_head_is_refused_and_the_connection_closed(shared: Stage, name: str) -> None:
    data, status = REFUSED[name]
    before = submits(shared)
    # What follows on the same connection would be a smuggled request if the first one were misread.
    raw = shared.raw(data + head(POST, TYPE, LENGTH) + BODY).rest()
    assert answers(raw) == [status]
    assert b'{"error": {"code": ' in raw and b"Traceback" not in raw
    assert submits(shared) == before
    assert shared.get("/healthz").status == 200


#: name -> (the body of a chunked request, statuses).
CHUNKS: dict[str, tuple[bytes, list[int]]] = {
    "whole": (b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), [202, 200]),
    "in pieces": (b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n", [202, 200]),
    "with an extension": (b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), [202, 200]),
    "with a trailer": (b"%x\r\n%s\r\n0\r\nX-A: b\r\n\r\n" % (len(BODY), BODY), [202, 200]),
    "size ZZ": (b"ZZ\r\n" + BODY + b"\r\n0\r\n\r\n", [400]),
    "size 0x2": (b"0x2\r\n{}\r\n0\r\n\r\n", [400]),
    "size -1": (b"-1\r\n{}\r\n0\r\n\r\n", [400]),
    "no size": (b"\r\n{}\r\n0\r\n\r\n", [400]),
    "a size of 20 digits": (b"f" * 20 + b"\r\n{}\r\n0\r\n\r\n", [400]),
    "longer than its size": (b"2\r\n{}x\r\n0\r\n\r\n", [400]),
    "a request in the trailer": (
        b"%x\r\n%s\r\n0\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (len(BODY), BODY),
        [400],
    ),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunked_bodies(shared: Stage, name: str) -> None:
    chunks, statuses = CHUNKS[name]
    raw = shared.raw(head(POST, TYPE, "Transfer-Encoding: chunked") + chunks + head(GET, END)).rest()
    assert answers(raw) == statuses
    assert b"Traceback" not in raw


def test_paths_that_lead_nowhere_are_4xx(shared: Stage) -> None:
    for path in (
        "//evil.example",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/",
        "/%ff",
        "/static/..%2fapp.py",
        "/static/../app.py",
    ):
        assert 400 <= shared.get(path).status < 405, path


def test_a_route_is_only_its_methods(shared: Stage) -> None:
    answer = shared.delete("/api/v1/stats")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"
    assert shared.request("HEAD", "/api/v1/stats").status == 200


@pytest.mark.parametrize(
    "query", ["?a=1", "?limit=1&limit=2", "?limit=1;state=queued", "?" + "a=1&" * 10_000, "?a[]=1"]
)
def test_a_query_nobody_asked_for_is_400(shared: Stage, query: str) -> None:
    answer = shared.get(f"/api/v1/jobs{query}")
    # The longest one does not even fit into a request line.
    assert answer.status in (400, 414)


def test_a_query_value_cannot_write_a_header(shared: Stage) -> None:
    sha256 = shared.broker.store(b"\x89PNG\r\n\x1a\n")
    answer = shared.get(f"/api/v1/files/{sha256}?name=a%0d%0aSet-Cookie:%20x=1")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_state_change_wants_json(shared: Stage, kind: str) -> None:
    before = submits(shared)
    answer = shared.post("/api/v1/jobs", BODY, Content_Type=kind)
    assert (answer.status, answer.code) == (415, "want_json")
    assert submits(shared) == before


def test_a_compressed_body_is_415(shared: Stage) -> None:
    answer = shared.post("/api/v1/jobs", BODY, Content_Type="application/json", Content_Encoding="gzip")
    assert (answer.status, answer.code) == (415, "compressed")


def test_a_body_of_20_mb_is_413_and_the_answer_arrives(shared: Stage) -> None:
    answer = shared.post("/api/v1/jobs", b'{"workflow":"' + b"x" * 20_000_000 + b'"}', Content_Type="application/json")
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_chunked_body_beyond_the_limit_is_413(shared: Stage) -> None:
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    raw = shared.raw(head(POST, TYPE, END, "Transfer-Encoding: chunked") + piece * 65 + b"0\r\n\r\n").rest()
    assert answers(raw) == [413]


def test_a_claim_of_a_terabyte_is_413_at_once(shared: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LINGER_S", 0.05)
    assert answers(shared.raw(head(POST, TYPE, f"Content-Length: {10**12}")).rest()) == [413]


def test_a_body_that_does_not_come_is_408(shared: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "BODY_S", 0.1)
    monkeypatch.setattr(serve, "LINGER_S", 0.05)
    raw = shared.raw(head(POST, TYPE, "Content-Length: 10") + b"{}").rest()
    assert answers(raw) == [408]


def test_a_body_that_ends_early_is_400(shared: Stage) -> None:
    connection = shared.raw(head(POST, TYPE, "Content-Length: 10") + b"{}")
    connection.sock.shutdown(1)
    assert answers(connection.rest()) == [400]


def test_a_head_that_does_not_come_ends_the_connection(shared: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "HEAD_S", 0.1)
    connections = [shared.raw(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ") for _ in range(50)]
    assert [connection.rest() for connection in connections] == [b""] * 50


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "IDLE_S", 0.1)
    with staged() as stage:
        assert stage.raw(b"").rest() == b""


def test_pipelined_requests_are_capped(shared: Stage) -> None:
    raw = shared.raw(head(GET) * 1_000).rest()
    assert answers(raw) == [200] * serve.MAX_REQUESTS_PER_CONNECTION
    assert raw.count(b"Connection: close") == 1


def test_whoever_asks_at_once_again_and_again_takes_turns_with_the_others(
    shared: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = shared.raw(head(GET)), shared.raw(head(GET))
    assert one.head() and other.head()  # both are taken in before the race begins
    served: list[str] = []
    read_request = serve.Handler.read_request

    def noting(handler: serve.Handler, line: str) -> Any:
        served.append(handler.client_address[1])
        return read_request(handler, line)

    monkeypatch.setattr(serve.Handler, "read_request", noting)
    asked = serve.MAX_REQUESTS_PER_CONNECTION - 2
    one.send(head(GET) * asked)
    other.send(head(GET) * asked)
    until(lambda: len(served) == 2 * asked)
    assert len(set(served[:asked])) == 2


def test_connections_beyond_the_cap_are_503() -> None:
    with staged(max_sockets=1) as stage:
        most = stage.web.server._max_connections
        held = [stage.raw(b"") for _ in range(most)]
        until(lambda: stage.web.server._open.total() >= most)
        extra = stage.raw(b"")
        raw = extra.rest()
        assert answers(raw) == [503] and b"Retry-After" in raw
        held.pop().close()
        until(lambda: stage.web.server._open.total() < most)
        assert stage.get("/healthz").status == 200


def test_many_connections_from_one_address_are_503_unless_it_is_this_machine(shared: Stage) -> None:
    counts = shared.web.server._open
    counts["192.0.2.1"] = serve.MAX_CONNECTIONS_PER_ADDRESS
    near = ("127.0.0.9", "::ffff:127.0.0.9", "::1")
    counts.update(dict.fromkeys(near, serve.MAX_CONNECTIONS_PER_ADDRESS))
    try:
        assert shared.web.server._over("192.0.2.1")
        assert not shared.web.server._over("192.0.2.2")
        assert not any(map(shared.web.server._over, near))
    finally:
        for peer in ("192.0.2.1", *near):
            del counts[peer]


def test_a_client_that_leaves_in_the_middle_of_its_answer_harms_nobody(shared: Stage) -> None:
    sha256 = shared.broker.store(b"\x89PNG\r\n\x1a\n" + bytes(5_000_000))
    connections: list[RawConnection] = []
    for _ in range(5):
        connection = shared.raw(head(f"GET /api/v1/files/{sha256} HTTP/1.1"))
        connection.head()
        connection.close()
        connections.append(connection)
    assert shared.get("/healthz").status == 200
    until(lambda: shared.web.server.serving == 0)


def test_expect_continue_is_heard(shared: Stage) -> None:
    connection = shared.raw(head(POST, TYPE, LENGTH, END, "Expect: 100-continue"))
    assert connection.head() == b"HTTP/1.1 100 Continue"
    connection.send(BODY)
    assert answers(connection.rest()) == [202]
