"""The workers: their sessions, what they offer, the room they have given, and when each is due to speak again.

Knows nothing of a job's life; fleet.py owns that. A worker's name has at most one session, the newest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from broker.core.backlog import GroupKey
from broker.core.jobs import Job
from broker.core.model import WORKER_MOVES
from broker.protocol.records import Held, Stats, WorkerState, WorkerView
from broker.protocol.worker import Announce, Capabilities, Ready


@dataclasses.dataclass(slots=True)
class Worker:
    """One session of a worker, as far as the broker believes."""

    announced: Announce
    since_utc_ms: int
    state: WorkerState = WorkerState.JOINED
    #: Lost when nothing was heard by then.
    silent_by_ms: int = 0
    stats: Stats | None = None
    #: The newest Ready, and the dispatches sent to this session so far.
    ready: Ready | None = None
    dispatched: int = 0
    #: job_id -> the attempt it holds, or was sent and has not confirmed.
    jobs: dict[str, Job] = dataclasses.field(default_factory=dict)
    succeeded: int = 0
    failed: int = 0

    @property
    def name(self) -> str:
        return self.announced.worker

    @property
    def session(self) -> str:
        return self.announced.session

    def room(self) -> int:
        """Attempts it can be sent now: what it offered, less those sent after it looked."""
        if self.ready is None or self.state is WorkerState.DRAINING:
            return 0
        unseen = sum(1 for job in self.jobs.values() if job.dispatch_serial > self.ready.seen)
        return self.ready.credits - unseen

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
        self._able: dict[tuple[str, GroupKey], bool] = {}

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

    def able(self, worker: Worker, key: GroupKey) -> bool:
        """Whether this worker can run jobs of this group at all, whatever it does now."""
        needs, pin = key
        if pin and pin != worker.name:
            return False
        if not set(needs.labels) <= set(worker.announced.labels):
            return False
        if needs.vram_bytes > worker.announced.gpu.vram_total_bytes:
            return False
        memo = (worker.announced.capabilities, key)
        known = self._able.get(memo)
        if known is None:
            offer = self._offers.get(worker.announced.capabilities)
            if offer is None:
                return False
            known = offer.nodes.issuperset(needs.nodes) and offer.models.issuperset(needs.models)
            if len(self._able) > 50_000:
                self._able.clear()
            self._able[memo] = known
        return known

    def with_room(self) -> Iterator[Worker]:
        return (w for w in self.by_session.values() if w.name not in self.paused and w.room() > 0)

    def view(self, worker: Worker) -> WorkerView:
        said = worker.announced
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
        self._able = {memo: able for memo, able in self._able.items() if memo[0] in used}
