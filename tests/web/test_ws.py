"""WebSockets on real connections: handshakes, what a browser may not send, and browsers that read slowly or never."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from broker.protocol.records import JobState
from tests.web.fake_broker import a_job
from tests.web.stage import PATIENCE_S, RawConnection, Stage, Watcher, masked, staged, until
from tests.web.test_frames import BROKEN
from web import ws
from web.frames import Close, Opcode

JOB = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def status(connection: RawConnection) -> int:
    return int(connection.head().split(b" ")[1])


# ---- handshakes

HANDSHAKES: dict[str, tuple[dict[str, str | None], int]] = {
    "somebody else's Origin": ({"Origin": "http://evil.example"}, 403),
    "Origin null": ({"Origin": "null"}, 403),
    "another port": ({"Origin": "http://127.0.0.1:99999"}, 403),
    "another scheme": ({"Origin": "ftp://127.0.0.1"}, 403),
    "another name of this machine": ({"Origin": "http://localhost:1"}, 403),
    "a frame of somebody else": ({"Origin": None, "Sec_Fetch_Site": "cross-site"}, 403),
    "a key that is not base64": ({"Sec_WebSocket_Key": "!!!"}, 400),
    "a key of one byte": ({"Sec_WebSocket_Key": "AA=="}, 400),
    "a key of 17 bytes": ({"Sec_WebSocket_Key": base64.b64encode(bytes(17)).decode()}, 400),
    "a key with a line of its own": ({"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==x"}, 400),
    "no key": ({"Sec_WebSocket_Key": None}, 400),
    "no Connection: upgrade": ({"Connection": "keep-alive"}, 400),
    "version 99": ({"Sec_WebSocket_Version": "99"}, 426),
    "version 8": ({"Sec_WebSocket_Version": "8"}, 426),
    "no version": ({"Sec_WebSocket_Version": None}, 426),
    "a body": ({"Content_Length": "4"}, 400),
    "a Host that is not ours": ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_is_refused_with_its_status(shared: Stage, name: str) -> None:
    changes, wanted = HANDSHAKES[name]
    connection = shared.handshake(**changes)
    head = connection.head()
    assert int(head.split(b" ")[1]) == wanted
    assert b'"error"' in connection.rest()
    assert (b"Sec-WebSocket-Version: 13" in head) == (wanted == 426)
    assert len(shared.web.sockets) == 0


def test_a_handshake_is_answered_with_the_digest_of_its_key(shared: Stage) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    head = shared.handshake(Sec_WebSocket_Key=key).head().decode()
    accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert f"Sec-WebSocket-Accept: {accept}" in head


def test_a_program_without_an_origin_may_watch_where_nobody_signs_in(shared: Stage) -> None:
    assert shared.watch(Origin=None).message()["type"] == "snapshot"


def test_another_path_has_no_socket(shared: Stage) -> None:
    connection = shared.raw(
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert status(connection) == 404


def test_the_path_without_a_handshake_is_an_ordinary_404(shared: Stage) -> None:
    assert shared.get("/api/v1/events").status == 404


def test_browsers_beyond_the_cap_are_503() -> None:
    with staged(max_sockets=2) as stage:
        browsers = [stage.watch() for _ in range(2)]
        refused = stage.handshake()
        assert status(refused) == 503
        browsers.pop().connection.close()
        until(lambda: len(stage.web.sockets) < 2)
        assert stage.watch().message()["type"] == "snapshot"


# ---- what a browser sends


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_closes_with_its_code(shared: Stage, name: str) -> None:
    data, code = BROKEN[name]
    browser = shared.watch()
    browser.send(data)
    assert browser.closed() == code
    assert shared.watch().message()["type"] == "snapshot"


@pytest.mark.parametrize(
    "text", ["not JSON", "[]", "1", "{}", '{"type":"nothing"}', "[" * 30_000, '{"type":"resync","id":"x"}']
)
def test_a_message_nobody_knows_closes_with_1008(shared: Stage, text: str) -> None:
    browser = shared.watch()
    browser.say(text)
    assert browser.closed() == Close.POLICY


def test_a_flood_of_pings_closes_with_1008(shared: Stage) -> None:
    browser = shared.watch()
    flood = gevent.spawn(_flood, browser.connection.sock)
    assert browser_close_among_pongs(browser) == Close.POLICY
    flood.kill()
    browser.connection.close()


def _flood(sock: socket.socket) -> None:
    try:
        for _ in range(100_000):
            sock.sendall(masked(Opcode.PING, b"x"))
    except OSError:
        return


def browser_close_among_pongs(browser: Watcher) -> int:
    while True:
        opcode, data = browser.frame()
        if opcode is Opcode.CLOSE:
            return int.from_bytes(data[:2], "big")


def test_a_frame_of_16_mib_is_refused_at_its_header_and_delays_nobody(shared: Stage) -> None:
    browser, other = shared.watch(), shared.watch()
    other.message()
    browser.send(b"\x82\xff" + (16 << 20).to_bytes(8, "big") + b"mask")
    assert browser.closed() == Close.TOO_BIG
    shared.broker.put(a_job())
    assert other.message()["type"] == "job"


def test_a_ping_is_answered(shared: Stage) -> None:
    browser = shared.watch()
    browser.message()
    browser.send(masked(Opcode.PING, b"there?"))
    assert browser.told() == (Opcode.PONG, b"there?")


def test_a_close_is_answered_and_the_connection_ends(stage: Stage) -> None:
    browser = stage.watch()
    browser.message()
    browser.send(masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))
    assert browser.closed() == Close.NORMAL
    until(lambda: len(stage.web.sockets) == 0)


def test_a_resync_is_answered_with_a_snapshot(shared: Stage) -> None:
    browser = shared.watch()
    browser.message()
    browser.say('{"type": "resync"}')
    assert browser.message()["type"] == "snapshot"


def test_a_browser_that_asks_for_one_snapshot_after_the_other_is_closed(shared: Stage) -> None:
    browser = shared.watch()
    browser.send(2 * masked(Opcode.TEXT, b'{"type":"resync"}'))
    assert browser.closed() == Close.POLICY


def test_a_frame_sent_together_with_the_handshake_is_read(shared: Stage) -> None:
    connection = shared.handshake()
    connection.send(masked(Opcode.PING, b"early"))
    connection.head()
    browser = Watcher(connection)
    assert {browser.told()[0], browser.told()[0]} == {Opcode.TEXT, Opcode.PONG}


# ---- what a browser gets


def test_a_page_follows_a_job_from_its_submit_to_its_picture(ready_stage: Stage) -> None:
    browser = ready_stage.watch()
    snapshot = browser.message()
    assert snapshot["connected"] and snapshot["workers"][0]["name"] == "worker-1"
    made = ready_stage.post("/api/v1/jobs", {"template": "text-to-image", "params": {"prompt": "a"}}).json
    told = browser.message()
    assert told["job"] == made and told["serial"] == snapshot["serial"] + 1
    ready_stage.broker.change(made["id"], state=JobState.RUNNING, attempt=1, worker="worker-1")
    assert browser.message()["job"]["state"] == "running"
    ready_stage.broker.progress(made["id"], 5)
    progress = browser.message()
    assert (progress["type"], progress["id"], progress["attempt"]) == ("progress", made["id"], 1)
    assert progress["progress"]["fraction"] == 0.25
    ready_stage.broker.preview(made["id"], b"\xff\xd8\xff picture")
    opcode, data = browser.told()
    size = int.from_bytes(data[:2], "big")
    assert opcode is Opcode.BINARY
    assert json.loads(data[2 : 2 + size]) == {"id": made["id"], "attempt": 1, "media_type": "image/jpeg"}
    assert data[2 + size :] == b"\xff\xd8\xff picture"


def test_the_page_hears_that_the_broker_went_and_came_back() -> None:
    with staged(reply_ms=300, quiet_s=0.5) as stage:
        browser = stage.watch()
        assert browser.message()["connected"]
        stage.broker.silent = True
        gone = browser.until("fleet")
        assert gone["connected"] is False
        stage.broker.silent = False
        assert browser.until("fleet")["connected"] is True


def stuff(stage: Stage) -> int:
    """Publish until a browser's socket and mailbox are full; returns how many events that took."""
    for count in range(1, 5_000):
        title = f"{count:05}{'x' * 495}"
        stage.broker.put(a_job(job_id=JOB, title=title, labels=("y" * 200,) * 10))
        if count % 20 == 0:  # more that come at once would be too much for whoever reads, too
            until(lambda title=title: (stage.web.hub.job(JOB) or {}).get("title") == title)  # type: ignore[misc]
        if any(browser._closed_ms is not None for group in stage.web.sockets._browsers.values() for browser in group):
            return count
    raise AssertionError("no browser was ever found too slow")


def small_buffers(stage: Stage) -> Watcher:
    """A browser whose receive buffer is small, so that the server notices soon that it does not read."""
    connection = stage.handshake()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    assert connection.head().startswith(b"HTTP/1.1 101 ")
    return Watcher(connection)


def test_a_browser_that_never_reads_is_dropped_and_delays_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "CLOSING_MS", 100)
    stalled, healthy = small_buffers(stage), stage.watch()
    healthy.message()
    heard = []

    def read() -> None:
        # To the end: one that stopped would be too slow itself.
        while True:
            heard.append(healthy.message()["type"])

    reader = gevent.spawn(read)
    count = stuff(stage)
    until(lambda: len(heard) == count, "the healthy browser waits for the stalled one")
    assert set(heard) == {"job"}
    until(lambda: len(stage.web.sockets) == 1, "the stalled browser is still there")
    reader.kill()
    del stalled


def test_a_slow_browser_that_wakes_up_in_time_is_told_why_it_was_closed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ws, "CLOSING_MS", 30_000)
    slow = small_buffers(stage)
    stuff(stage)
    assert slow.closed() == Close.TOO_SLOW


def test_what_waits_for_slow_browsers_is_in_memory_once(stage: Stage) -> None:
    job = stage.broker.put(a_job(state=JobState.RUNNING, attempt=1))
    until(lambda: stage.web.hub.job(job.job_id))
    slow = [small_buffers(stage) for _ in range(3)]
    until(lambda: len(stage.web.sockets) == 3)
    stage.broker.preview(job.job_id, bytes(1_000_000))
    [browsers] = stage.web.sockets._browsers.values()
    until(lambda: not any(browser._mailbox.empty for browser in browsers))
    gevent.sleep(0)  # each has tried once more, and kept what was not taken
    assert len({id(memoryview(browser._mailbox._rest).obj) for browser in browsers}) == 1
    del slow


def test_progress_for_a_slow_browser_is_merged_and_its_page_knows(stage: Stage) -> None:
    job = stage.broker.put(a_job(state=JobState.RUNNING, attempt=1))
    until(lambda: stage.web.hub.job(job.job_id))
    slow = small_buffers(stage)
    until(lambda: len(stage.web.sockets) == 1)
    stage.broker.preview(job.job_id, bytes(1_000_000))
    [[browser]] = stage.web.sockets._browsers.values()
    until(lambda: not browser._mailbox.empty)
    for number in range(300):
        stage.broker.progress(job.job_id, number % 20 + 1)
    stage.broker.change(job.job_id, state=JobState.SUCCEEDED)
    until(lambda: stage.web.hub.job(job.job_id)["state"] == "succeeded")  # type: ignore[index]
    serial, skipped, count = slow.message()["serial"], 0, 0
    assert slow.told()[0] is Opcode.BINARY
    while (message := slow.message())["type"] != "job":
        if message["type"] == "skip":
            skipped += message["serial"] - serial
        else:
            assert message["serial"] == serial + 1, "a gap that no skip explains"
            count += 1
        serial = message["serial"]
    assert message["job"]["state"] == "succeeded"
    assert skipped > 200 and skipped + count == 300


def test_a_browser_that_takes_nothing_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "CHECK_S", 0.02)
    monkeypatch.setattr(ws, "STUCK_MS", 50)
    monkeypatch.setattr(ws, "CLOSING_MS", 50)
    with staged() as stage:
        stalled = small_buffers(stage)
        job = stage.broker.put(a_job(state=JobState.RUNNING, attempt=1))
        picture = os.urandom(700_000)
        stage.broker.preview(job.job_id, picture)
        stage.broker.preview(job.job_id, picture)
        until(lambda: len(stage.web.sockets) == 0, "the stalled browser is still there")
        del stalled


def test_a_browser_that_never_answers_pings_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "CHECK_S", 0.02)
    monkeypatch.setattr(ws, "SILENT_MS", 1_000)  # so long an answer may take on a busy machine
    with staged() as stage:
        dead, alive = stage.watch(), stage.watch()
        pings = gevent.spawn(_answer_pings, alive)
        assert dead.connection.rest()
        assert len(stage.web.sockets) == 1
        pings.kill()


def _answer_pings(browser: Watcher) -> None:
    while True:
        opcode, data = browser.frame()
        if opcode is Opcode.PING:
            browser.send(masked(Opcode.PONG, data))


def test_a_tick_comes_without_any_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "CHECK_S", 0.01)
    with staged() as stage:
        browser = stage.watch()
        browser.message()
        assert browser.frame() == (Opcode.TEXT, b'{"type":"tick"}')


def test_stopping_says_1001_to_every_browser() -> None:
    with staged() as stage:
        browsers = [stage.watch() for _ in range(3)]
        closed = [gevent.spawn(browser.closed) for browser in browsers]
        stage.web.stop()
        assert [greenlet.get(timeout=PATIENCE_S) for greenlet in closed] == [Close.GOING_AWAY] * 3
        stage.web = stage._start()


# ---- who


def tokens(folder: Path, *lines: str) -> Path:
    path = folder / "tokens"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return path


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_whoever_is_not_signed_in_is_told_so_with_4401(tmp_path: Path) -> None:
    with staged(token_file=tokens(tmp_path, f"ann {digest('a')}")) as stage:
        assert stage.watch().closed() == Close.NOT_SIGNED_IN
        assert stage.watch(Authorization="Bearer wrong").closed() == Close.NOT_SIGNED_IN
        assert stage.watch(Authorization="Bearer a").message()["type"] == "snapshot"


def test_a_cookie_without_an_origin_is_403(tmp_path: Path) -> None:
    with staged(token_file=tokens(tmp_path, f"ann {digest('a')}")) as stage:
        assert status(stage.handshake(Origin=None, Cookie="comfyfleet=x")) == 403


def test_a_token_that_is_taken_away_closes_its_browsers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "CHECK_S", 0.05)
    monkeypatch.setattr("web.auth._LOOK_MS", 10)
    with staged(token_file=tokens(tmp_path, f"ann {digest('a')}", f"bob {digest('b')}")) as stage:
        ann, bob = (stage.watch(Authorization=f"Bearer {token}") for token in "ab")
        tokens(tmp_path, f"bob {digest('b')}")
        assert ann.closed() == Close.NOT_SIGNED_IN
        stage.broker.put(a_job(owner="bob"))
        assert bob.until("job")["job"]["owner"] == "bob"


def test_nobody_hears_of_somebody_elses_job(tmp_path: Path) -> None:
    lines = (f"ann {digest('a')}", f"bob {digest('b')}", f"root {digest('r')} admin")
    with staged(token_file=tokens(tmp_path, *lines)) as stage:
        ann, bob, root = (stage.watch(Authorization=f"Bearer {token}") for token in "abr")
        for browser in (ann, bob, root):
            browser.message()
        mine = stage.broker.put(a_job(owner="ann", state=JobState.RUNNING, attempt=1))
        stage.broker.progress(mine.job_id, 3)
        stage.broker.preview(mine.job_id, b"\xff\xd8\xff secret")
        theirs = stage.broker.put(a_job(owner="bob"))
        assert [ann.message()["type"], ann.message()["type"], ann.told()[0]] == ["job", "progress", Opcode.BINARY]
        heard: dict[str, Any] = bob.message()
        assert heard["job"]["id"] == theirs.job_id, "the first thing bob hears is of his own job"
        assert [root.message()["type"], root.message()["type"], root.told()[0]] == ["job", "progress", Opcode.BINARY]
        assert root.message()["job"]["id"] == theirs.job_id


def test_one_owner_cannot_take_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "MAX_OF_ONE_OWNER", 2)
    with staged(token_file=tokens(tmp_path, f"ann {digest('a')}", f"bob {digest('b')}")) as stage:
        held = [stage.watch(Authorization="Bearer a") for _ in range(2)]
        assert status(stage.handshake(Authorization="Bearer a")) == 503
        assert stage.watch(Authorization="Bearer b").message()["type"] == "snapshot"
        del held
