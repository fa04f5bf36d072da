"""The workers: their sessions, what they offer, the room they have given, and when each is due to speak again.

Knows nothing of a job's life; fleet.py owns that. A worker's name has at most one session, the newest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from broker.core.backlog import GroupKey
from broker.core.jobs import Job
from broker.core.model import WORKER_MOVES
from broker.core.step import Step
from broker.protocol.events import WorkerChanged
from broker.protocol.records import Breaker, BreakerState, Held, Stats, WorkerState, WorkerView
from broker.protocol.worker import Announce, Capabilities, Ready

#: Attempts that one heartbeat, announce or welcome can name; a worker never has more, whatever room it claims.
HELD_MOST: Final = 64
#: Workers that one reply can name.
WORKERS_MOST: Final = 5_000
#: What decides what a worker can run: the digest of its capabilities, its labels, its card's memory in bytes.
Kind = tuple[str, tuple[str, ...], int]


@dataclasses.dataclass(slots=True)
class Health:
    """Whether a worker's name gets work, and what speaks against it; breaker.py decides."""

    state: BreakerState = BreakerState.CLOSED
    why: str = ""
    since_utc_ms: int = 0
    #: What failed there since anything last succeeded.
    against: set[str] = dataclasses.field(default_factory=set)
    #: Failed probes in a row, and openings soon after the last closing.
    setbacks: int = 0
    closed_ms: int | None = None
    #: The session that was sent the probe of this number and has not answered; empty = none was.
    probed: str = ""
    probe: int = 0


@dataclasses.dataclass(slots=True)
class Worker:
    """One session of a worker, as far as the broker believes."""

    announced: Announce
    since_utc_ms: int
    state: WorkerState = WorkerState.JOINED
    #: Lost when nothing was heard by then.
    silent_by_ms: int = 0
    stats: Stats | None = None
    #: The newest Ready.
    ready: Ready | None = None
    #: job_id -> the attempt it holds, or was sent and has not confirmed.
    jobs: dict[str, Job] = dataclasses.field(default_factory=dict)
    succeeded: int = 0
    failed: int = 0
    breaker: Health = dataclasses.field(default_factory=Health)

    @property
    def name(self) -> str:
        return self.announced.worker

    @property
    def session(self) -> str:
        return self.announced.session

    @property
    def kind(self) -> Kind:
        return self.announced.capabilities, self.announced.labels, self.announced.gpu.vram_total_bytes

    def room(self) -> int:
        """Attempts it can be sent now: what it offered, less those sent after it looked."""
        closed = self.breaker.state is BreakerState.CLOSED
        if self.ready is None or self.state is WorkerState.DRAINING or not closed:
            return 0
        unseen = sum(1 for job in self.jobs.values() if job.dispatch_serial > self.ready.seen)
        return min(self.ready.credits - unseen, HELD_MOST - len(self.jobs))

    def move(self, state: WorkerState) -> bool:
        """Take a state the table allows; answers whether it changed."""
        if state is self.state or state not in WORKER_MOVES[self.state]:
            return False
        self.state = state
        return True


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """What one capability document serves."""

    nodes: frozenset[str]
    models: frozenset[str]


class Roster:
    def __init__(self) -> None:
        self.by_session: dict[str, Worker] = {}
        self.by_name: dict[str, Worker] = {}
        #: Names that get no work, and whether nobody does.
        self.paused: set[str] = set()
        self.fleet_paused = False
        #: Sessions a newer one of the same name has replaced; they are never let in again.
        self.retired: dict[str, None] = {}
        self._offers: dict[str, Offer] = {}
        self._serves: dict[tuple[Kind, GroupKey], bool] = {}

    def join(self, worker: Worker) -> None:
        self.by_session[worker.session] = worker
        self.by_name[worker.name] = worker

    def part(self, worker: Worker) -> None:
        """Its session is over; its name may come back."""
        del self.by_session[worker.session]
        del self.by_name[worker.name]

    def retire(self, session: str) -> None:
        self.retired[session] = None
        while len(self.retired) > 10_000:
            del self.retired[next(iter(self.retired))]

    def knows(self, digest: str) -> bool:
        return digest in self._offers

    def learn(self, capabilities: Capabilities) -> None:
        self._offers[capabilities.digest] = Offer(frozenset(capabilities.nodes), frozenset(capabilities.models))
        self._forget_unused()

    def serves(self, kind: Kind, group: GroupKey) -> bool:
        """Whether workers of this kind can run jobs of this group at all, whatever they do now; their names aside."""
        known = self._serves.get((kind, group))
        if known is None:
            digest, labels, vram_bytes = kind
            offer = self._offers.get(digest)
            if offer is None:
                return False
            known = (
                group.vram_bytes <= vram_bytes
                and set(labels).issuperset(group.labels)
                and offer.nodes.issuperset(group.nodes)
                and offer.models.issuperset(group.models)
            )
            if len(self._serves) > 50_000:
                self._serves.clear()
            self._serves[kind, group] = known
        return known

    def with_room(self) -> Iterator[Worker]:
        return (w for w in self.by_session.values() if w.name not in self.paused and w.room() > 0)

    def show(self, step: Step, worker: Worker) -> None:
        step.published.append(WorkerChanged(stream="", serial=0, worker=self.view(worker)))

    def view(self, worker: Worker) -> WorkerView:
        said, health = worker.announced, worker.breaker
        return WorkerView(
            worker=said.worker,
            session=said.session,
            state=worker.state,
            paused=said.worker in self.paused,
            simulated=said.simulated,
            version=said.version,
            comfyui_version=said.comfyui_version,
            capabilities=said.capabilities,
            gpu=said.gpu,
            stats=worker.stats,
            labels=said.labels,
            breaker=Breaker(state=health.state, why=health.why, since_utc_ms=health.since_utc_ms),
            restartable=said.restartable,
            held=tuple(
                Held(job_id=job_id, attempt=job.record.attempt, phase=job.phase)
                for job_id, job in worker.jobs.items()
                if job.phase is not None
            )[:64],
            succeeded=worker.succeeded,
            failed=worker.failed,
            since_utc_ms=worker.since_utc_ms,
        )

    def _forget_unused(self) -> None:
        """Keep only the documents that a present worker names: a digest may change at every new file on a disk."""
        used = {worker.announced.capabilities for worker in self.by_session.values()}
        for digest in self._offers.keys() - used:
            del self._offers[digest]
        self._serves.clear()
