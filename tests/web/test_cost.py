"""What the web process costs, as ratios to simple servers on the same machine in the same run; each says its figure."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer

from broker.protocol import events
from broker.protocol.records import JobState
from tests.web.fake_broker import a_job, a_progress
from tests.web.stage import Stage, staged, until
from tests.web.test_hub import STREAM
from web import ws
from web.mailbox import Frame

BROWSERS = 100
EVENTS = 150
ROUNDS = 5


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n  {text}", end="")


@contextlib.contextmanager
def browsers(port: int, count: int, stalled: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Browsers in a process of their own, connected to `port`."""
    command = [sys.executable, "-m", "tests.web.drain", str(port), str(count), str(stalled)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


# ---- an answer on a kept connection


def bare(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read()
    body = b'{"status":"ok","connected":true}'
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class Bare(WSGIServer):
    """pywsgi as it comes, but for TCP_NODELAY."""

    def handle(self, sock: Any, address: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)


def latencies(port: int, path: str, count: int) -> list[float]:
    """Milliseconds of each of `count` requests on one connection, with a body as a program would send it."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    found = []
    with contextlib.closing(connection):
        for _ in range(count):
            begun = time.perf_counter()
            connection.request("GET", path)
            connection.getresponse().read()
            found.append((time.perf_counter() - begun) * 1000)
    return sorted(found)


def test_an_answer_on_a_kept_connection_never_waits_for_an_acknowledgement(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Bare(("127.0.0.1", 0), bare, log=None)
    server.start()
    try:
        rounds = [
            (latencies(stage.port, "/healthz", 90), latencies(server.socket.getsockname()[1], "/", 90))
            for _ in range(ROUNDS)
        ]
    finally:
        server.stop()
    # Of its slow answers the calmest round tells: in the others the machine may have stood still.
    figures = [
        (statistics.median(itertools.chain(*found)), min(one[-3] for one in found))
        for found in zip(*rounds, strict=True)
    ]
    (ours50, ours97), (theirs50, theirs97) = figures
    show(
        capsys, f"kept connection: p50 {ours50:.2f} ms (bare pywsgi {theirs50:.2f}), p97 {ours97:.2f} ({theirs97:.2f})"
    )
    # Without TCP_NODELAY every one of these answers takes 40 ms, a hundred times the bare server's.
    assert ours50 < 10 * theirs50
    assert ours97 < 10 * theirs50 + 30


# ---- fan-out


class Plain:
    """The usual way: gevent-websocket, and a loop of sends."""

    def __init__(self) -> None:
        from geventwebsocket.handler import WebSocketHandler

        self.sockets: list[Any] = []
        self._ended = gevent.event.Event()
        self.server = Bare(("127.0.0.1", 0), self._serve, handler_class=WebSocketHandler, log=None)
        self.server.start()

    def _serve(self, environ: Any, _: Any) -> list[bytes]:
        self.sockets.append(environ["wsgi.websocket"])
        self._ended.wait()
        return []

    def send(self, texts: list[str]) -> None:
        for text in texts:
            for sock in self.sockets:
                sock.send(text)

    def stop(self) -> None:
        self._ended.set()
        self.server.stop()


def progress(number: int, job_id: str) -> events.JobProgress:
    return events.JobProgress(
        stream=STREAM, serial=number + 1, job_id=job_id, attempt=1, progress=a_progress(number % 20 + 1)
    )


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds on the wall, seconds of this process's processor)."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def ours(stage: Stage, job_id: str, at_once: int) -> None:
    """Events through the hub to every browser, `at_once` of them per tick, and all of it out of the mailboxes."""
    for first in range(0, EVENTS, at_once):
        batch = [progress(number, job_id) for number in range(first, first + at_once)]
        stage.web.sockets.deliver(stage.web.hub.apply(batch))
        if first % 50 == 0:
            gevent.sleep(0)
    until(lambda: all(one._mailbox.empty for group in stage.web.sockets._browsers.values() for one in group))


def theirs(plain: Plain, job_id: str) -> None:
    for number in range(EVENTS):
        event = progress(number, job_id)
        told = {"type": "progress", "serial": number, "id": job_id, "attempt": 1}
        plain.send([json.dumps({**told, "progress": {"value": event.progress.value, "text": "x" * 60}})])
        if number % 50 == 0:
            gevent.sleep(0)


def test_an_event_costs_less_than_a_loop_of_sends(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    with staged() as stage:
        job = stage.broker.put(a_job(state=JobState.RUNNING, attempt=1))
        port = plain.server.socket.getsockname()[1]
        with browsers(stage.port, BROWSERS), browsers(port, BROWSERS):
            until(lambda: len(stage.web.sockets) == len(plain.sockets) == BROWSERS)
            rounds = [
                (timed(lambda: theirs(plain, job.job_id)), timed(lambda: ours(stage, job.job_id, 1)),
                 timed(lambda: ours(stage, job.job_id, 5)))
                for _ in range(ROUNDS)
            ]  # fmt: skip
    plain.stop()
    alone, joined = (
        [statistics.median(one[0][clock] / one[which][clock] for one in rounds) for clock in (0, 1)] for which in (1, 2)
    )
    sent = EVENTS * BROWSERS
    rates = [sent / statistics.median(one[which][0] for one in rounds) for which in range(3)]
    show(
        capsys,
        f"fan-out to {BROWSERS}: plain loop {rates[0]:,.0f}/s; ours {rates[1]:,.0f}/s = {alone[0]:.2f} times "
        f"({alone[1]:.2f} by processor); five events a tick {rates[2]:,.0f}/s = {joined[0]:.2f} ({joined[1]:.2f})",
    )
    assert alone[1] > 1.1
    assert joined[1] > 2.5


def test_a_stalled_browser_does_not_slow_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time from events to the sockets of all healthy browsers, before and after one has stopped reading."""
    monkeypatch.setattr(ws, "STUCK_MS", 10 * ws.STUCK_MS)  # it is there to the end, however long that takes
    with staged() as stage:
        job_id = stage.broker.put(a_job(state=JobState.RUNNING, attempt=1)).job_id
        with browsers(stage.port, BROWSERS, stalled=1):
            until(lambda: len(stage.web.sockets) == BROWSERS)
            before = [timed(lambda: ours_to_healthy(stage, job_id)) for _ in range(7)]
            fill(stage, job_id)
            after = [timed(lambda: ours_to_healthy(stage, job_id)) for _ in range(7)]
            assert len(stage.web.sockets) == BROWSERS, (
                "the stalled browser was closed before the end of the measurement"
            )
    wall, processor = (
        statistics.median(one[clock] for one in after) / statistics.median(one[clock] for one in before)
        for clock in (0, 1)
    )
    show(capsys, f"one stalled browser of {BROWSERS}: the others take {wall:.2f} times as long ({processor:.2f})")
    assert processor < 3  # waiting for one would have no end


def fill(stage: Stage, job_id: str) -> None:
    """Previews until one browser's socket is full."""
    picture = events.JobPreview(job_id=job_id, attempt=1, media_type="image/jpeg", image=bytes(200_000))
    everyone = [one for group in stage.web.sockets._browsers.values() for one in group]
    while not any(one._mailbox.size_bytes > 150_000 for one in everyone):
        stage.web.sockets.deliver(stage.web.hub.apply([picture]))
        until(lambda: sum(not one._mailbox.empty for one in everyone) <= 1)


def ours_to_healthy(stage: Stage, job_id: str) -> None:
    for number in range(EVENTS):
        stage.web.sockets.deliver(stage.web.hub.apply([progress(number, job_id)]))
    everyone = [one for group in stage.web.sockets._browsers.values() for one in group]
    until(lambda: sum(not one._mailbox.empty for one in everyone) <= 1)


def test_what_one_event_costs_does_not_depend_on_how_many_watch() -> None:
    """Encoding happens once: a hundred browsers of one scope are handed the very same frame."""
    with staged() as stage, browsers(stage.port, 20):
        until(lambda: len(stage.web.sockets) == 20)
        handed: list[list[Frame]] = []
        for group in stage.web.sockets._browsers.values():
            for one in group:
                one.deliver = lambda frames, joined, serial: handed.append(frames)  # type: ignore[method-assign]
        stage.broker.put(a_job())
        until(lambda: len(handed) == 20)
        assert len({id(frames[0].data) for frames in handed}) == 1
