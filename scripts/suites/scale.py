"""What grows with the fleet, and what does not: dispatch with a short queue and a long one, with few workers and many,
and watched by few browsers and many; what one waiting job, one worker and one browser weigh in memory; how long a
start with a full queue takes; what an idle broker uses. Workers are peers that speak the contract (scripts/crew.py)
over real sockets, some hundreds in a process; the broker's disk is real, and every commit is on it."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from broker.core.model import JobRecord
from broker.core.step import AddStory, InsertJob
from broker.protocol import client
from broker.protocol.story import StoryLine
from broker.store.backup import DATABASE
from broker.store.sqlite import SqliteStore
from scripts.figures import Curves, Found, Samples
from scripts.fleet import Fleet
from scripts.onlookers import Onlookers
from scripts.submitter import NEEDS, Submitter

OWNERS: Final = 50
#: Submits under way at once, and jobs on their way that are not over.
WINDOW: Final = 200
#: Workers in one process of the crew.
HANDS: Final = 500
SETTINGS: Final = {
    "log.level": "warning",
    "network.queue": "100000",
    "broker.max_queued": "10000000",
    "broker.max_queued_per_owner": "10000000",
}


def measure(*, quick: bool) -> Iterator[Found]:
    rounds = 1 if quick else 5
    yield from _queues((100, 5_000) if quick else (1_000, 100_000, 1_000_000), rounds, 0.5 if quick else 2.0)
    yield from _workers((2, 40) if quick else (10, 100, 1_000, 2_000), rounds, 50 if quick else 800)
    yield from _browsers((1, 50) if quick else (1, 1_000, 3_000), rounds, 50 if quick else 300)


# ---- jobs that wait


class Deep:
    """A broker with so many jobs queued from its start, and sixteen workers."""

    def __init__(self, stack: contextlib.ExitStack, queued: int) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyfleet-bench-")))
        seed(folder / "data" / DATABASE, queued)
        began = time.perf_counter()
        fleet = stack.enter_context(Fleet(folder, workers=0, web=False, settings=SETTINGS))
        self.started_s = time.perf_counter() - began
        self.rss = _rss(fleet, "broker")
        self._submitter = stack.enter_context(Submitter(fleet))
        self._submitter.ask(client.Pause, worker="")
        fleet.start_crew(16)

    def rate(self, seconds: float) -> tuple[float, float]:
        """Jobs finished a second while as many come as go, and the 99th percentile of the replies, in ms."""
        self._submitter.ask(client.Resume, worker="")
        rate, took = self._submitter.sustain(seconds, 16)
        self._submitter.ask(client.Pause, worker="")
        while (stats := self._submitter.ask(client.Statistics).stats).running + stats.leased:
            time.sleep(0.01)
        return rate, sorted(took)[int(len(took) * 0.99)] * 1e3


def _queues(sizes: tuple[int, ...], rounds: int, seconds: float) -> Iterator[Found]:
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    p99s: dict[int, list[float]] = {size: [] for size in sizes}
    with contextlib.ExitStack() as stack:
        brokers = {size: Deep(stack, size) for size in sizes}
        for number in range(-1, rounds):
            for size in sizes if number % 2 else reversed(sizes):
                rate, p99 = brokers[size].rate(seconds)
                if number >= 0:
                    rates[size].append(rate)
                    p99s[size].append(p99)
    few, many = sizes[0], sizes[-1]
    for size in sizes:
        print(
            f"scale: {size:,} queued: {statistics.median(rates[size]):,.0f} jobs/s, replies within "
            f"{statistics.median(p99s[size]):.1f} ms p99; ready after {brokers[size].started_s:.1f} s"
        )
    for size in sizes[1:]:
        name = f"jobs/s with {size:,} queued / {few:,} queued"
        yield Samples.ratios(rates[size], rates[few]).figure(name, "ratio", 0.8 if size == many else None, ">=")
    name = f"reply p99 with {many:,} queued / {few:,} queued"
    yield Samples.ratios(p99s[many], p99s[few]).figure(name, "ratio", None, "<=")
    weight = (brokers[many].rss - brokers[few].rss) / (many - few) / 1_024
    yield Samples([weight]).figure("memory of a waiting job", "KiB", 1.5, "<=")
    yield Samples([brokers[many].started_s]).figure(f"start-up with {many:,} queued", "s", 15.0, "<=")
    lines = {"jobs/s": [(size, statistics.median(rates[size])) for size in sizes]}
    yield Curves("Dispatch and the length of the queue", "jobs queued", "jobs/s", lines)


def seed(path: Path, count: int) -> None:
    """Jobs that wait, as a broker stores them, but without waiting for the disk meanwhile. Their workflows are short:
    they stay on the disk, whose speed is not what is asked here."""
    store = SqliteStore(path)
    store._execute("PRAGMA synchronous = OFF")
    store._execute("PRAGMA cache_size = -500000")
    now_ms = time.time_ns() // 1_000_000
    body = json.dumps({"1": {"class_type": "Nothing", "inputs": {}}}).encode()
    for number in range(1, count + 1):
        record = JobRecord(
            job_id=str(uuid.uuid4()), sequence=number, owner=f"owner-{number % OWNERS}", idempotency_key="",
            body_sha256=f"{number:064x}", title=f"a lighthouse at dusk, number {number}", template="", labels=(),
            priority=0, needs=NEEDS, files=(), created_utc_ms=now_ms,
        )  # fmt: skip
        store.apply(InsertJob(record, body, b""))
        line = StoryLine(utc_ms=now_ms, what="queued", attempt=0, burnt=0, worker="", text="", decision=None)
        store.apply(AddStory(record.job_id, line))
        if number % 10_000 == 0:
            store.commit()
    store.commit()
    store.close()


# ---- workers


def _workers(sizes: tuple[int, ...], rounds: int, jobs: int) -> Iterator[Found]:
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    weights: list[float] = []
    idle: list[float] = []
    idle_at = max(size for size in sizes if size <= 1_000)
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder,
            Fleet(Path(folder), workers=0, web=False, settings=SETTINGS) as fleet,
            Submitter(fleet) as submitter,
        ):
            fleet.start_crew(sizes[0])
            submitter.through(jobs // 4, WINDOW)
            here, weight = sizes[0], 0
            for size in sizes:
                before = _rss(fleet, "broker")
                for first in range(here, size, HANDS):
                    fleet.start_crew(min(HANDS, size - first), first=first + 1)
                weight += _rss(fleet, "broker") - before
                here = size
                if size == idle_at:
                    idle.append(_busy(fleet, 1.0 if rounds == 1 else 4.0))
                rates[size].append(jobs / submitter.through(jobs, WINDOW))
            weights.append(weight / (sizes[-1] - sizes[0]) / 1_024)
    few, many = sizes[0], sizes[-1]
    for size in sizes:
        print(f"scale: {size:,} workers: {statistics.median(rates[size]):,.0f} jobs/s")
    for size in sizes[1:]:
        name = f"jobs/s with {size:,} workers / {few:,} workers"
        yield Samples.ratios(rates[size], rates[few]).figure(name, "ratio", 0.7 if size == many else None, ">=")
    yield Samples(weights).figure("memory of a worker", "KiB", 50.0, "<=")
    yield Samples(idle).figure(f"idle broker, {idle_at:,} workers that beat", "% of a core", 10.0, "<=")
    lines = {"jobs/s": [(size, statistics.median(rates[size])) for size in sizes]}
    yield Curves("Dispatch and the number of workers", "workers", "jobs/s", lines)


def _busy(fleet: Fleet, seconds: float) -> float:
    """Percent of a core that the broker uses while nobody asks it for anything."""
    process = psutil.Process(fleet.processes["broker"].child.pid)
    process.cpu_percent()
    time.sleep(seconds)
    return float(process.cpu_percent())


# ---- browsers


def _browsers(sizes: tuple[int, ...], rounds: int, jobs: int) -> Iterator[Found]:
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    weights: list[float] = []
    settings = {**SETTINGS, "web.max_sockets": "10000"}
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder,
            Fleet(Path(folder), workers=0, settings=settings) as fleet,
            Onlookers(fleet.url) as onlookers,
        ):
            fleet.start_crew(16)
            with Submitter(fleet) as submitter:
                submitter.through(jobs, WINDOW)
                onlookers.grow_to(sizes[0])
                before = _rss(fleet, "web")
                for size in sizes:
                    onlookers.grow_to(size)
                    if size == sizes[-1]:
                        weights.append((_rss(fleet, "web") - before) / (size - sizes[0]) / 1_024)
                    rates[size].append(jobs / submitter.through(jobs, WINDOW))
    for size in sizes:
        print(f"scale: {size:,} browsers: {statistics.median(rates[size]):,.0f} jobs/s")
    name = f"jobs/s watched by {sizes[-1]:,} browsers / {sizes[0]:,}"
    yield Samples.ratios(rates[sizes[-1]], rates[sizes[0]]).figure(name, "ratio", None, ">=")
    yield Samples(weights).figure("memory of a browser in the web process", "KiB", 40.0, "<=")
    lines = {"jobs/s": [(size, statistics.median(rates[size])) for size in sizes]}
    yield Curves("Dispatch and the number of browsers that watch", "browsers", "jobs/s", lines)


def _rss(fleet: Fleet, name: str) -> int:
    """Bytes of memory that a process of the fleet has now."""
    return int(psutil.Process(fleet.processes[name].child.pid).memory_info().rss)
