"""Progress and previews from a broker's events to 1, 100 and 1,000 browsers: each sent to all and had by all before the
next, or a step of each of 20 jobs at once. Beside it are servers that get the same ready to send: a loop of sends with
gevent-websocket, aiohttp, websockets, and a bare loop of sendall. And how late a step is at 1,000 browsers when 20
jobs run, two steps a second each, and what one browser costs the others that has stopped to read."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from scripts.audience import Audience, Browser
from scripts.figures import Figure, Samples
from scripts.fleet import ROOT, Process
from scripts.standin import JOBS, Standin

PREVIEW: Final = os.urandom(30_000)
AT_ONCE: Final = JOBS
STEPS_PER_S: Final = 2.0
ROUNDS: Final = 5
#: Name -> (module, the package it shows, the goals singly and at once).
OTHERS: Final = {
    "a gevent-websocket loop": ("loop", "geventwebsocket", 1.3, 4.0),
    "aiohttp": ("aio", "aiohttp", 1.0, 1.0),
    "websockets": ("broadcast", "websockets", 1.0, 1.0),
    "a bare loop of sendall": ("floor", "zmq", 0.7, 0.7),
}
OURS: Final = "web"


def beside() -> dict[str, str]:
    optional = [module for _, module, _, _ in present().values() if module in ("aiohttp", "websockets")]
    return {name: importlib.metadata.version(name) for name in ("gevent", "gevent-websocket", *optional)}


def present() -> dict[str, tuple[str, str, float, float]]:
    """The others that are installed."""
    return {name: other for name, other in OTHERS.items() if importlib.util.find_spec(other[1])}


def measure(*, quick: bool) -> Iterator[Figure]:
    for name in OTHERS.keys() - present().keys():
        print(f"fanout: {name} is left out; scripts/setup bench installs it")
    crowds, rounds, share = ((1, 20), 1, 20) if quick else ((1, 100, 1_000), ROUNDS, 1)
    _raise_descriptors()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyfleet-bench-")))
        standin = stack.enter_context(Standin())
        servers = [stack.enter_context(server(name, folder, standin)) for name in (OURS, *present())]
        for count in crowds:
            for kind, at_once in (("step", 1), ("step", AT_ONCE), ("preview", 1)):
                rates = _rates(servers, kind, at_once, count, quick=quick)
                what = {"step": "events of 200 B", "preview": "previews of 30 KB"}[kind]
                what = f"{what} to {count:,}" + (f", {at_once} at once" if at_once > 1 else "")
                told = ", ".join(f"{name} {statistics.median(found):,.0f}" for name, found in rates.items())
                print(f"fanout: {what}: delivered/s: {told}")
                for name, (_, _, singly, together) in present().items():
                    goal = None if count == 1 else singly if at_once == 1 else together
                    yield Samples.ratios(rates[OURS], rates[name]).figure(f"{what} / {name}", "ratio", goal, ">=")
        ours = servers[0]
        yield Samples([_late(ours, crowds[-1], 10.0 / share) for _ in range(rounds)]).figure(
            f"delay of a step, {crowds[-1]:,} browsers, {JOBS} jobs, p99", "ms", 100.0, "<="
        )
        kept = [_beside_a_stalled(ours, crowds[-2] if not quick else crowds[-1], share) for _ in range(rounds)]
        yield Samples(kept).figure("deliveries/s beside a browser that does not read / without it", "ratio", 0.9, ">=")


class Server:
    """One that sends to all who watch it."""

    def __init__(self, name: str, standin: Standin, port: int) -> None:
        self.name = name
        #: What the stand-in calls it.
        self._called = "" if name == OURS else OTHERS[name][0]
        self._path = "/api/v1/events" if name == OURS else "/"
        self._standin = standin
        self._port = port

    def audience(self, count: int) -> Audience:
        found = Audience(self._port, self._path, count)
        found.wake(lambda: self.send("step"))
        return found

    def stalled(self) -> Browser:
        """A browser that never reads, and has room for little."""
        return Browser(self._port, self._path, room_bytes=4_096)

    def send(self, kind: str) -> None:
        if kind == "preview":
            self._standin.preview(PREVIEW, self._called)
        else:
            self._standin.step(self._called)


@contextlib.contextmanager
def server(name: str, folder: Path, standin: Standin) -> Iterator[Server]:
    """The web process, or another, in a process of its own."""
    if name == OURS:
        settings = {**standin.settings, "web.port": "*", "log.level": "warning", "web.templates": str(folder)}
        flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "web", *flags]
    else:
        command = [sys.executable, "-m", f"scripts.rivals.{OTHERS[name][0]}", standin.texts]
    process = Process("server", command, folder, {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield Server(name, standin, urlsplit(process.ready().rpartition("=")[2].split()[-1]).port or 0)
    finally:
        process.kill()


def _rates(servers: list[Server], kind: str, at_once: int, count: int, *, quick: bool) -> dict[str, list[float]]:
    """Messages delivered a second, of each round."""
    events = {1: 600, 100: 200}.get(count, 40) // (1 if kind == "step" else 4)
    events = at_once if quick else max(5, events // at_once) * at_once
    rates: dict[str, list[float]] = {one.name: [] for one in servers}
    for number in range(1 if quick else ROUNDS):
        for one in servers if number % 2 else reversed(servers):
            with one.audience(count) as audience:
                seconds = _sent(one, audience, kind, events, at_once)
                rates[one.name].append(events * count / seconds)
    return rates


def _sent(one: Server, audience: Audience, kind: str, events: int, at_once: int) -> float:
    """The seconds until so many events were had by all, each before the next is sent."""
    began = time.perf_counter()
    for _ in range(events // at_once):
        for _ in range(at_once):
            one.send(kind)
        audience.expect(at_once)
    return time.perf_counter() - began


def _late(one: Server, count: int, seconds: float) -> float:
    """The delay in ms that 99 of 100 deliveries do not exceed, when steps come as those of 20 jobs do."""
    sent: list[float] = []
    with one.audience(count) as audience:
        for each in audience.browsers.values():
            each.times = []
        apart_s = 1 / (JOBS * STEPS_PER_S)
        due = time.perf_counter()
        until = due + seconds
        while due < until:
            audience.look(due)
            sent.append(due)
            one.send("step")
            due += apart_s
        audience.expect(len(sent))
        came = [each.times or [] for each in audience.browsers.values()]
        delays = sorted(at - began for times in came for began, at in zip(sent, times, strict=True))
    return delays[-len(delays) // 100] * 1_000


def _beside_a_stalled(one: Server, count: int, share: int) -> float:
    """What the others get of what they got before there was one that does not read."""
    events = 400 // share
    with one.audience(count) as audience:
        alone = _sent(one, audience, "step", events, 1)
        stalled = one.stalled()
        for _ in range(60):
            one.send("preview")
            audience.expect(1)
        beside = _sent(one, audience, "step", events, 1)
        stalled.socket.close()
    return alone / beside


def _raise_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
