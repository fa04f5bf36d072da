"""Durable accepts a second, with 1 to 256 submits under way at once: the broker beside itself with one commit for each
job, and beside itself with a store in memory. Jobs of 2 KB, no workers; a job counts when its reply is here."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scripts.figures import Curves, Found, Samples
from scripts.fleet import Fleet
from scripts.submitter import Submitter

#: How the broker keeps what it accepts -> how it is started.
BROKERS: Final = {
    "group": ("broker",),
    "each": ("scripts.stores", "each"),
    "memory": ("scripts.stores", "memory"),
}
WINDOWS: Final = (1, 16, 64, 256)


def measure(*, quick: bool) -> Iterator[Found]:
    rounds = 1 if quick else 5
    rates: dict[tuple[str, int], list[float]] = {(name, window): [] for name in BROKERS for window in WINDOWS}
    waits: dict[int, list[float]] = {window: [] for window in WINDOWS}
    with contextlib.ExitStack() as stack:
        submitters = {name: _start(stack, command) for name, command in BROKERS.items()}
        for number in range(-1, rounds):
            for window in WINDOWS:
                for name in sorted(BROKERS, reverse=number % 2 == 0):
                    jobs = (50 if window == 1 else 200) if quick or number < 0 else (300 if window == 1 else 800)
                    began = time.perf_counter()
                    took = submitters[name].accept(jobs, window)
                    if number >= 0:
                        rates[name, window].append(jobs / (time.perf_counter() - began))
                        waits[window] += took if name == "group" else []
    for window in WINDOWS:
        group, each, memory = (rates[name, window] for name in BROKERS)
        took = sorted(waits[window])
        print(
            f"accept: {window} at once: {statistics.median(group):,.0f}/s, one commit a job "
            f"{statistics.median(each):,.0f}/s, in memory {statistics.median(memory):,.0f}/s; reply after "
            f"{took[len(took) // 2] * 1e3:.1f} ms p50, {took[int(len(took) * 0.99)] * 1e3:.1f} ms p99"
        )
        at = f"accepts/s at {window} outstanding"
        goal = 4.0 if window == 64 else None
        yield Samples.ratios(group, each).figure(f"{at} / one commit a job", "ratio", goal, ">=")
        yield Samples.ratios(group, memory).figure(f"{at} / memory store", "ratio", 0.4, ">=")
    lines = {name: [(window, statistics.median(rates[name, window])) for window in WINDOWS] for name in BROKERS}
    yield Curves("Jobs accepted a second", "submits under way at once", "accepts/s", lines)


def _start(stack: contextlib.ExitStack, command: tuple[str, ...]) -> Submitter:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyfleet-bench-"))
    settings = {"log.level": "warning", "broker.max_queued_per_owner": "10000000"}
    fleet = Fleet(Path(folder), workers=0, web=False, settings=settings, broker=command)
    return stack.enter_context(Submitter(stack.enter_context(fleet), watch=False))
