"""What a decision costs the broker's core, and what a waiting job weighs, with a thousand jobs queued and a million.

The core alone, without sockets and disk: a thousand workers of four kinds, each with a prompt that runs and one staged,
so that every finished job asks for one decision. Jobs that are weighed come as messages do. Processor time is what is
counted: the machine may have other things to do.
"""

from __future__ import annotations

import dataclasses
import gc
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from broker.core.events import Event, FromClient, FromWorker, Tick
from broker.core.fleet import Fleet
from broker.core.model import JobRecord
from broker.core.rules import Now, Rules
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.codec import ADMIN_SENDS, decode, encode
from broker.protocol.records import Gpu, Needs, Progress, ProgressKind, Timings
from broker.store.sqlite import SqliteStore
from broker.turn import Turn
from scripts.figures import Figure

WORKERS: Final = 1_000
FEW, MANY = 1_000, 1_000_000
#: Jobs that are weighed with the store beside them, as the broker has it.
WEIGHED: Final = 100_000
CARDS: Final = ("NVIDIA RTX 4090", "NVIDIA RTX 3090", "NVIDIA RTX 3060", "NVIDIA L4")
MODELS: Final = tuple(f"checkpoints/model-{number}.safetensors" for number in range(6))
NODES: Final = (
    "CLIPTextEncode", "CheckpointLoaderSimple", "EmptyLatentImage", "KSampler", "SaveImage", "VAEDecode",
)  # fmt: skip
OWNERS: Final = 50
TIMINGS: Final = Timings(staging_ms=5, waiting_ms=900, running_ms=4_000, loading_ms=0, finishing_ms=20)
STARTED: Final = Progress(
    kind=ProgressKind.STARTED, node_id="", node_type="", value=0, most=0, fraction=0.0, text=""
)  # fmt: skip
UTC_MS: Final = 1_800_000_000_000


def measure(*, quick: bool) -> Iterator[Figure]:
    many, decisions = (5_000, 300) if quick else (MANY, 20_000)
    rates = {queued: _rate(queued, decisions) for queued in (FEW, many)}
    for queued, rate in rates.items():
        print(f"placement: {queued:,} queued: {rate:,.0f} decisions/s, {1e6 / rate:.0f} us each")
    yield Figure(f"decisions/s, {many:,} queued / {FEW:,} queued", rates[many] / rates[FEW], "ratio", 0.8, ">=")
    yield Figure("broker memory of a waiting job", _weight(min(WEIGHED, many)) / 1_024, "KiB", 1.5, "<=")


class Core:
    """The core with workers that finish one prompt and ask for the next."""

    def __init__(self) -> None:
        counts: dict[Any, int] = {}
        self.now_ms = 0
        self.fleet = Fleet(
            Rules(max_queued=10**7, max_queued_per_owner=10**7), "f" * 32,
            jitter=lambda: 0.5, counts=counts, last_sequence=0, now=self.now,
        )  # fmt: skip
        #: Dispatches that no worker has begun, what each worker holds, and what was taken back.
        self.sent: list[tuple[str, wire.Dispatch]] = []
        self.running: dict[str, list[wire.Dispatch]] = {}
        self.gone: set[tuple[str, int]] = set()
        self.serials: dict[str, int] = {}

    @property
    def now(self) -> Now:
        return Now(self.now_ms, UTC_MS + self.now_ms)

    def handle(self, event: Event) -> None:
        step = self.fleet.handle(event, self.now)
        self.fleet.publish(step.published)
        for send in step.sends:
            if isinstance(send.message, wire.Dispatch):
                self.sent.append((send.session, send.message))
            elif isinstance(send.message, wire.Abandon):
                self.gone.add((send.message.job_id, send.message.attempt))

    def begin(self, session: str, said: wire.Dispatch) -> None:
        accepted = wire.Accepted(job_id=said.job_id, attempt=said.attempt, prompt_id="p")
        self.handle(FromWorker(session, accepted))
        report = wire.ProgressReport(
            job_id=said.job_id, attempt=said.attempt, serial=1, progress=STARTED, media_type="", image=b""
        )
        if not self.running.get(session):
            self.handle(FromWorker(session, report))
        self.running.setdefault(session, []).append(said)

    def join(self, number: int) -> None:
        session, digest = f"{number:032x}", "d" * 64
        gpu = Gpu(name=CARDS[number % len(CARDS)], kind="cuda", vram_total_bytes=(8 << 30) + number % len(CARDS))
        said = wire.Announce(
            worker=f"gpu-{number}", session=session, version="1", comfyui_version="0.3.64", simulated=True,
            capabilities=digest, gpu=gpu, labels=(), held=(), restartable=False,
        )  # fmt: skip
        self.handle(FromWorker(session, said))
        self.handle(FromWorker(session, wire.Capabilities(digest=digest, nodes=NODES, models=MODELS)))
        self.ready(session, 2, 0)

    def ready(self, session: str, credits: int, seen: int) -> None:
        self.serials[session] = self.serials.get(session, 0) + 1
        said = wire.Ready(serial=self.serials[session], credits=credits, seen=seen)
        self.handle(FromWorker(session, said))

    def finish(self, session: str) -> None:
        """The prompt that runs is done, and the one behind it begins."""
        said, *rest = self.running.pop(session)
        done = wire.Complete(job_id=said.job_id, attempt=said.attempt, outputs=(), timings=TIMINGS)
        self.handle(FromWorker(session, done))
        for other in rest:
            if (other.job_id, other.attempt) not in self.gone:
                self.begin(session, other)
        self.ready(session, 2 - len(self.running.get(session, ())), self.fleet.leases._dispatched)


def submit(number: int) -> client.Submit:
    """A job as it comes from a web process; its texts are its own, as they are when they were read from a socket."""
    needs = Needs(
        nodes=NODES, models=(MODELS[number % len(MODELS)],), labels=(), vram_bytes=0, pixels=1 << 20,
        steps=20 + number % 3 * 5, signature=f"signature-{number % len(MODELS)}",
    )  # fmt: skip
    said = client.Submit(
        request_id="e" * 32, job_id=str(uuid.UUID(int=number)), idempotency_key="", owner=f"owner-{number % OWNERS}",
        title=f"a lighthouse at dusk, number {number}", text="", template="text-to-image", labels=(), priority=0,
        needs=needs, pin="", deadline_ms=None, wait_for_worker=True, files=(), parts=(), workflow=b"{}", form=b"",
    )  # fmt: skip
    found: client.Submit = decode(encode(said), ADMIN_SENDS)
    return found


def records(count: int) -> Iterator[JobRecord]:
    """Waiting jobs as the store hands them over at a start."""
    needs = [
        dataclasses.replace(submit(number).needs, models=(model,), signature=f"signature-{number}")
        for number, model in enumerate(MODELS)
    ]
    for number in range(1, count + 1):
        yield JobRecord(
            job_id=str(uuid.UUID(int=number)), sequence=number, owner=f"owner-{number % OWNERS}", idempotency_key="",
            body_sha256=f"{number:064x}", title=f"a lighthouse at dusk, number {number}", template="text-to-image",
            labels=(), priority=0, needs=needs[number % len(needs)], files=(), created_utc_ms=UTC_MS,
        )  # fmt: skip


def _rate(queued: int, decisions: int) -> float:
    core = Core()
    core.fleet.recover(records(queued + 2 * WORKERS + decisions), {}, (), core.now)
    for number in range(WORKERS):
        core.join(number)
    core.handle(Tick())
    assert len(core.sent) >= WORKERS, f"{len(core.sent)} sent to {WORKERS} workers"
    spent, made = 0.0, 0
    # As the broker does at its start.
    gc.collect()
    gc.freeze()
    turn = 0
    while made < decisions:
        sent, core.sent = core.sent, []
        for session, said in sent:
            core.begin(session, said)
        core.now_ms += 50
        for number in range(turn, turn + 20):
            session = f"{number % WORKERS:032x}"
            if core.running.get(session):
                core.finish(session)
        turn += 20
        began = time.process_time()
        core.handle(Tick())
        spent += time.process_time() - began
        made += len(core.sent)
    gc.unfreeze()
    return made / spent


def _weight(jobs: int) -> float:
    """Bytes of the broker's memory for each of so many waiting jobs, the store's included."""
    with tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder:
        store = SqliteStore(Path(folder) / "fleet.sqlite3")
        core = Core()
        turn = Turn(core.fleet, store, lambda sha256: True)
        turn.take([], [FromClient("c" * 32, submit(number)) for number in range(1, 101)], core.now)
        gc.collect()
        tracemalloc.start()
        for begin in range(101, jobs + 101, 500):
            turn.take([], [FromClient("c" * 32, submit(begin + n)) for n in range(500)], core.now)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        store.close()
    return held / jobs
