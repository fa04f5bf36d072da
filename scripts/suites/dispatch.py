"""From the submit of a job that does nothing to its recorded end, jobs a second, with 1, 2 and 16 workers, beside
queues that a user would pick instead. Every job is a workflow of 2 KB, written and read as JSON; 200 submits are under
way at once, or as many as the other's client sends. The fleet's workers hold two jobs each, as they do by default, its
client hears of each job's end, and each commit is on disk. What promises less is said to be without fsync."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scripts.figures import Found, Samples
from scripts.fleet import Fleet
from scripts.rivals.queues import Queue, present, versions
from scripts.submitter import Submitter, workflow

WORKERS: Final = (1, 2, 16)
WINDOW: Final = 200
#: Name of the other -> how it differs, and what the fleet's rate is to be of its, by number of workers.
OTHERS: Final[dict[str, tuple[str, dict[int, float]]]] = {
    "Celery, Redis": ("without fsync; solo or prefork, prefetch 64", {1: 3.0, 2: 5.0}),
    "Celery, Redis fsync": ("appendfsync always", {1: 6.0, 2: 6.0, 16: 6.0}),
    "RQ, Redis": ("without fsync; SimpleWorker", {}),
    "Dramatiq, Redis": ("without fsync; 1 x 8 threads, else 2 x 8", {}),
    "Huey, SQLite fsync": ("threads", {1: 2.0, 2: 2.0, 16: 2.0}),
    "zguide lbbroker": ("in memory", {1: 0.4, 2: 0.4, 16: 0.4}),
    "zmq.proxy": ("in memory", {}),
}


def beside() -> dict[str, str]:
    return versions()


def measure(*, quick: bool) -> Iterator[Found]:
    names = list(present())
    for workers in (2,) if quick else WORKERS:
        rates = _rates(names, workers, rounds=1 if quick else 5, jobs=50 if quick else 200)
        told = ", ".join(f"{name} {statistics.median(found):,.0f}" for name, found in rates.items())
        print(f"dispatch: jobs/s with {workers}: {told}")
        for name in names:
            how, goals = OTHERS[name]
            mine = Samples.ratios(rates["fleet"], rates[name])
            yield mine.figure(f"jobs/s with {workers} / {name} ({how})", "ratio", goals.get(workers), ">=")


def _rates(names: list[str], workers: int, *, rounds: int, jobs: int) -> dict[str, list[float]]:
    """Jobs a second of each round, the fleet's and each other's."""
    rates: dict[str, list[float]] = {name: [] for name in ("fleet", *names)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyfleet-bench-")))
        settings = {"log.level": "warning", "network.queue": "100000"}
        fleet = stack.enter_context(Fleet(folder / "fleet", workers=0, web=False, settings=settings))
        fleet.start_crew(workers)
        submitter = stack.enter_context(Submitter(fleet))
        queues = [stack.enter_context(Queue(name, folder / str(at), workers)) for at, name in enumerate(names)]
        for number in range(-1, rounds):
            # The first round warms up, and shows how many jobs each gets done in about half a second.
            for queue in queues if number % 2 else reversed(queues):
                many = jobs if not rates[queue.name] else max(jobs, min(5_000, int(rates[queue.name][0] / 2)))
                rates[queue.name].append(many / queue.run([workflow() for _ in range(many)]))
            many = jobs if not rates["fleet"] else max(jobs, int(rates["fleet"][0] / 2))
            rates["fleet"].append(many / submitter.through(many, WINDOW))
    return {name: found[1:] for name, found in rates.items()}
