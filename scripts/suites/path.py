"""The whole way of a step and of a preview, from 20 workers through the broker and the web process to a browser, as
many a second as come through when each worker sends its next once the browser has the last; beside the same texts and
pictures from a PUB socket to a bare SUB that passes them on, with no broker, no contract and no page between. What
bounds it is the processors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import zmq

from broker.protocol.records import Held, Phase, Progress, ProgressKind
from broker.protocol.worker import Accepted, Dispatch, ProgressReport
from broker.runtime.settings import Network
from scripts.audience import LOST_S, Audience
from scripts.crew import STARTED, Member, now_ms
from scripts.figures import Figure, Samples
from scripts.fleet import ROOT, Fleet, Process
from scripts.standin import Standin
from worker.core.asks import Send

WORKERS: Final = 20
PREVIEW: Final = os.urandom(30_000)
STEPS: Final = 1_000_000
ROUNDS: Final = 7
#: Kind -> what it is, how many each worker sends in a round, the bytes of one.
KINDS: Final = {"step": ("events", 40, 200), "preview": ("previews of 30 KB", 15, len(PREVIEW))}


def measure(*, quick: bool) -> Iterator[Figure]:
    rates: dict[str, dict[str, list[float]]] = {kind: {"fleet": [], "bare": []} for kind in KINDS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyfleet-bench-")))
        fleet = stack.enter_context(Fleet(folder, workers=0, settings={"log.level": "warning"}))
        crew = stack.enter_context(reporters(fleet))
        standin = stack.enter_context(Standin())
        command = [sys.executable, "-m", "scripts.rivals.floor", standin.texts]
        bare = Process("floor", command, folder, {**os.environ, "PYTHONPATH": str(ROOT)})
        stack.callback(bare.kill)
        ways: dict[str, Callable[[str], None]] = {
            "fleet": lambda kind: _reported(crew, kind),
            "bare": lambda kind: _published(standin, kind),
        }
        ends = {"fleet": (fleet.url, "/api/v1/events"), "bare": (bare.ready().split()[-1], "/")}
        audiences = {}
        for name, (url, path) in ends.items():
            audiences[name] = stack.enter_context(Audience(urlsplit(url).port or 0, path, 1))
            audiences[name].wake(functools.partial(ways[name], "step"))
        for number in range(1 if quick else ROUNDS):
            for kind, (_, count, _) in KINDS.items():
                for name in sorted(ways, reverse=number % 2 == 1):
                    rate = through(audiences[name], ways[name], kind, 3 if quick else count)
                    rates[kind][name].append(rate)
    for kind, (what, _, size) in KINDS.items():
        told = ", ".join(
            f"{name} {statistics.median(found):,.0f}/s, {statistics.median(found) * size / 1e6:.1f} MB/s"
            for name, found in rates[kind].items()
        )
        print(f"path: {what}: {told}")
        yield Samples.ratios(rates[kind]["fleet"], rates[kind]["bare"]).figure(
            f"{what}, worker to browser / over a bare PUB and SUB", "ratio", 0.4, ">="
        )


def through(audience: Audience, send: Callable[[str], None], kind: str, count: int) -> float:
    """How many a second came through."""
    audience.forget()
    began = time.perf_counter()
    for _ in range(count):
        send(kind)
        audience.expect(WORKERS)
    return count * WORKERS / (time.perf_counter() - began)


def _reported(crew: list[Reporter], kind: str) -> None:
    """Each worker has news."""
    for one in crew:
        one.report(kind)


def _published(standin: Standin, kind: str) -> None:
    """As many, to whoever subscribes."""
    for _ in range(WORKERS):
        if kind == "preview":
            standin.preview(PREVIEW, "floor")
        else:
            standin.step("floor")


class Reporter(Member):
    """A worker whose one job goes on for ever."""

    def __init__(self, *args: Any) -> None:
        self.job: Dispatch | None = None
        self._serial = 1
        super().__init__(*args)

    def report(self, kind: str) -> None:
        """The next step of its job, or a preview."""
        assert self.job is not None
        self._serial += 1
        progress = Progress(
            kind=ProgressKind.PREVIEW if kind == "preview" else ProgressKind.STEP, node_id="3", node_type="KSampler",
            value=self._serial, most=STEPS, fraction=self._serial / STEPS, text="",
        )  # fmt: skip
        image = PREVIEW if kind == "preview" else b""
        report = ProgressReport(
            job_id=self.job.job_id, attempt=self.job.attempt, serial=self._serial, progress=progress,
            media_type="image/jpeg" if image else "", image=image,
        )  # fmt: skip
        self._act([Send(report)])
        if self.due_ms() <= now_ms():
            self.tick()

    def _run(self, asks: list[Any], said: Dispatch) -> None:
        self.job = said
        self._link.dispatched(said.serial)
        key: Any = {"job_id": said.job_id, "attempt": said.attempt}
        asks.append(Send(Accepted(**key, prompt_id=said.job_id)))
        asks.append(Send(ProgressReport(**key, serial=1, progress=STARTED, media_type="", image=b"")))

    def _credits(self) -> int:
        # None behind its own, which would never begin, and which another worker would wait for in vain.
        return int(self.job is None)

    def _held(self) -> tuple[Held, ...]:
        if self.job is None:
            return ()
        return (Held(job_id=self.job.job_id, attempt=self.job.attempt, phase=Phase.RUNNING),)


@contextlib.contextmanager
def reporters(fleet: Fleet) -> Iterator[list[Reporter]]:
    """Workers, each with a job that it runs."""
    context = zmq.Context[zmq.Socket[bytes]]()
    network = dataclasses.replace(Network(), workers=fleet.endpoint("workers"))
    crew = [Reporter(context, network, f"worker-{number}") for number in range(WORKERS)]
    try:
        for one in crew:
            one.introduce()
        for _ in crew:
            fleet.request("POST", "/api/v1/jobs", {"workflow": {"1": {"class_type": "Nothing", "inputs": {}}}})
        until = time.monotonic() + LOST_S
        while idle := sum(one.job is None for one in crew):
            if time.monotonic() > until:
                raise SystemExit(f"bench: {idle} of {WORKERS} workers have got no job")
            for one in crew:
                one.tick()
            time.sleep(0.01)
        yield crew
    finally:
        context.destroy(linger=0)
