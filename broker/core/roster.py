"""The workers: their sessions, what they offer, the room they have given, and when each is due to speak again.

Knows nothing of a job's life; fleet.py owns that. A worker's name has at most one session, the newest.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile
from typing import Final

from broker.core import resident
from broker.core.backlog import GroupKey, Kind
from broker.core.health import Health, Standing
from broker.core.jobs import Job
from broker.core.last_hour import LastHour
from broker.core.model import NAMES_KEPT, WORKER_MOVES
from broker.core.others import Others
from broker.core.rules import Now
from broker.core.step import Remember, Step
from broker.protocol.events import WorkerChanged
from broker.protocol.records import Breaker, BreakerState, Held, Phase, Stats, WorkerState, WorkerView
from broker.protocol.worker import Announce, Capabilities, Heartbeat, Ready

#: Attempts that one heartbeat, announce or welcome can name; a worker never has more, whatever room it claims.
HELD_MOST: Final = 64
#: Workers that one reply can name.
WORKERS_MOST: Final = 5_000
#: What a job lacks that is told by name; of more only the number.
NAMED: Final = 5
#: Sets of models that are remembered to have run on a worker.
SETS: Final = 4
#: So often within this time may living processes take a name from one another; then whoever has it keeps it.
CONTESTS: Final = 2
CONTEST_MS: Final = 10 * 60_000
#: Beginnings of the notes, each before a worker's name: no work for it (alone: for nobody), the session that was asked
#: to drain, why its breaker is open.
PAUSED: Final = "paused/"
DRAINING: Final = "draining/"
BREAKER: Final = "breaker/"


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
    #: What somebody else does there.
    others: Others = dataclasses.field(default_factory=Others)
    #: Attempts sent to it.
    given: int = 0
    #: What watchers know of it that they are told at once when it changes; None before anything was told.
    told: Standing | None = None
    #: The models its ComfyUI is believed to hold, the most recently used last; and the sets of which they were, newest
    #: first.
    resident: tuple[str, ...] = ()
    sets: tuple[tuple[str, ...], ...] = ()
    #: How fast its card is, and how long it takes to load what a job needs, as learnt.
    speed: float = 1.0
    load_ms: int | None = None
    #: Jobs that succeeded there.
    done: LastHour = dataclasses.field(default_factory=LastHour)

    @property
    def name(self) -> str:
        return self.announced.worker

    @property
    def session(self) -> str:
        return self.announced.session

    @property
    def lacks_comfyui(self) -> bool:
        """Whether its ComfyUI does not answer."""
        return self.stats is not None and bool(self.stats.comfy_fault)

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

    def beat(self, said: Heartbeat, now: Now) -> bool:
        """What its heartbeat tells of itself; answers whether it says anything that placement goes by."""
        self.done.forget(now.mono_ms)
        self.forget_contests(now.mono_ms)
        self.stats = said.stats
        matters = self.others.seen(said, now) or bool(self.jobs)
        for held in said.held:
            job = self.jobs.get(held.job_id)
            if job is not None and job.record.attempt == held.attempt and held.phase is Phase.STAGED:
                job.behind = min(job.behind, self.others.counted)
        if said.stats.comfy_fault:
            matters |= bool(self.resident or self.sets)
            self.holds_nothing()
        return matters

    def goes_behind(self, job: Job) -> int:
        """How many prompts of others ComfyUI comes to before one that it was sent; those posted later come after it."""
        return min(job.behind, self.others.prompts)

    def forget_contests(self, mono_ms: int) -> None:
        """What is long ago is no quarrel any more."""
        self.breaker.contests = [at_ms for at_ms in self.breaker.contests if mono_ms - at_ms < CONTEST_MS]

    def holds(self, models: tuple[str, ...], size: Callable[[str], int]) -> None:
        """A prompt with these models runs, or has run. size: of a model, in bytes."""
        self.resident = self.held_after(self.resident, models, size)
        earlier = (other for other in self.sets if other != models)
        self.sets = (models, *earlier)[:SETS]

    def will_hold(self, size: Callable[[str], int]) -> tuple[str, ...]:
        """The models its ComfyUI is believed to hold once everything sent to it has run."""
        models = self.resident
        for job in self.jobs.values():
            models = self.held_after(models, job.record.needs.models, size)
        return models

    def holds_nothing(self) -> None:
        """Its ComfyUI was started anew, or told to let go of everything."""
        self.resident, self.sets = (), ()

    def held_after(self, models: tuple[str, ...], used: tuple[str, ...], size: Callable[[str], int]) -> tuple[str, ...]:
        """What a ComfyUI that held `models` holds once a prompt with those used has run."""
        said = self.announced
        more = resident.keeps_more(said.comfyui_version)
        return resident.after(models, used, keeps_more=more, vram_bytes=said.gpu.vram_total_bytes, size=size)

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
        #: Who was heard longest ago comes first.
        self.by_session: OrderedDict[str, Worker] = OrderedDict()
        self.by_name: dict[str, Worker] = {}
        #: Names that get no work, and whether nobody does.
        self.paused: set[str] = set()
        self.fleet_paused = False
        #: Names of workers about which something has changed that placement goes by.
        self.touched: dict[str, None] = {}
        #: Names of workers of which something has changed that watchers are told a little later.
        self.untold: dict[str, None] = {}
        #: Kinds of which it must be asked anew what they can run.
        self.relearnt: set[str | None] = set()
        #: What outlives this process, as the store has it: see `remember`.
        self.notes: dict[str, str] = {}
        #: Sessions a newer one of the same name has replaced, with that name: they are never let in again. No name: the
        #: session has spoken since.
        self.retired: dict[str, str] = {}
        #: How many workers of each kind are present.
        self._kinds: dict[Kind, int] = {}
        self._offers: dict[str | None, Offer] = {}
        self._serves: dict[tuple[Kind, tuple[object, ...]], bool] = {}

    def join(self, worker: Worker) -> None:
        self.by_session[worker.session] = worker
        self.by_name[worker.name] = worker
        self._count(worker.kind, 1)
        self.touch(worker.name)

    def part(self, worker: Worker) -> None:
        """Its session is over; its name may come back."""
        self.lose(worker)
        del self.by_name[worker.name]

    def lose(self, worker: Worker) -> None:
        """Its session is over; its name is kept for a while."""
        del self.by_session[worker.session]
        self._count(worker.kind, -1)
        self.touch(worker.name)

    def heard(self, worker: Worker, silent_by_ms: int) -> None:
        """It has spoken: it is lost when nothing more was heard by then, which nobody else is later."""
        worker.silent_by_ms = silent_by_ms
        self.by_session.move_to_end(worker.session)

    def silent(self, mono_ms: int) -> list[Worker]:
        """Who has said nothing for too long."""
        return list(takewhile(lambda worker: worker.silent_by_ms <= mono_ms, self.by_session.values()))

    def next_silent_ms(self) -> int | None:
        """When the first of them will have, if nothing more is heard."""
        return next((worker.silent_by_ms for worker in self.by_session.values()), None)

    def measured(self, name: str) -> None:
        """What it measures is new: watchers are told a little later."""
        self.untold[name] = None

    def touch(self, name: str) -> None:
        """Placement must look at this worker again before it goes on."""
        self.touched[name] = None

    def retire(self, session: str, name: str) -> None:
        self.retired[session] = name
        while len(self.retired) > 10_000:
            del self.retired[next(iter(self.retired))]

    def outlived(self, session: str, now_ms: int) -> None:
        """A replaced session speaks: two processes have one name."""
        known = self.by_name.get(self.retired[session])
        if known is not None:
            known.breaker.contests.append(now_ms)
            self.retired[session] = ""

    def rival(self, name: str, session: str) -> Worker | None:
        """Another than this one that has its name and speaks."""
        known = self.by_name.get(name)
        if known is None or known.session == session or known.session not in self.by_session:
            return None
        return known

    def recover(self, notes: dict[str, str]) -> None:
        """Take over what an earlier process of the broker remembered."""
        self.notes = dict(notes)
        self.fleet_paused = PAUSED in notes
        self.paused = {key.removeprefix(PAUSED) for key in notes if key.startswith(PAUSED) and key != PAUSED}

    def remember(self, step: Step, kind: str, name: str, value: str) -> None:
        """Keep a word about the worker of this name, or about the fleet; an empty value forgets it."""
        key = kind + name
        if self.notes.get(key, "") != value:
            self.notes[key] = value
            step.writes.append(Remember(key, value))
        if not value:
            self.notes.pop(key, None)

    def forget(self, step: Step, name: str) -> None:
        """A worker is gone. That somebody has paused its name stays."""
        for kind in (DRAINING, BREAKER):
            self.remember(step, kind, name, "")

    def wants(self, digest: str | None) -> bool:
        """Whether who announced it has to tell what it offers; None: its ComfyUI has not answered, so it cannot."""
        return digest is not None and digest not in self._offers

    def documents(self) -> frozenset[str]:
        """The capability documents in use, which are stored files. A worker that names another is asked to store it."""
        named = {worker.announced.capabilities for worker in self.by_session.values()}
        return frozenset(digest for digest in named | self._offers.keys() if digest is not None)

    def learn(self, capabilities: Capabilities) -> None:
        self._offers[capabilities.digest] = Offer(frozenset(capabilities.nodes), frozenset(capabilities.models))
        self.relearnt.add(capabilities.digest)
        self._forget_unused()

    def serves(self, kind: Kind, group: GroupKey) -> bool:
        """Whether workers of this kind can run jobs of this group at all, whatever they do now; names aside."""
        asked = kind, group[:4]
        known = self._serves.get(asked)
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
            if len(group.nodes) + len(group.models) <= NAMES_KEPT:
                self._serves[asked] = known
        return known

    def why_not(self, group: GroupKey) -> str:
        """Why none of the workers that are here could ever run such a job; empty when one could, when nobody is here,
        and when one has not told yet what it offers. Who has no ComfyUI yet is not here, unless it is asked for."""
        if group.pin:
            named = self.by_name.get(group.pin)
            if named is None:
                return f"no worker called {group.pin} is here"
            kinds = [named.kind]
        else:
            kinds = [kind for kind in self._kinds if kind[0] is not None]
        if not kinds or any(kind[0] not in self._offers or self.serves(kind, group) for kind in kinds):
            return ""
        lacks = [self._lacks(kind, group) for kind in kinds]
        fewest = min(lacks, key=len)
        who = f"the worker {group.pin}" if group.pin else "no worker has all it needs; the nearest"
        more = f" and {len(fewest) - NAMED} more" if len(fewest) > NAMED else ""
        return f"{who} lacks {', '.join(fewest[:NAMED])}{more}"

    def _lacks(self, kind: Kind, group: GroupKey) -> list[str]:
        digest, labels, vram_bytes = kind
        offer = self._offers[digest]
        lacks = [f"the node {name}" for name in group.nodes if name not in offer.nodes]
        lacks += [f"the model {name}" for name in group.models if name not in offer.models]
        lacks += [f"the label {name}" for name in group.labels if name not in labels]
        if group.vram_bytes > vram_bytes:
            lacks.append(f"a card with {group.vram_bytes >> 20} MiB")
        return lacks

    def _count(self, kind: Kind, more: int) -> None:
        self._kinds[kind] = self._kinds.get(kind, 0) + more
        if not self._kinds[kind]:
            del self._kinds[kind]
            self.relearnt.add(kind[0])  # nobody is left for whom it would have to be known

    def may_work(self, worker: Worker) -> bool:
        """Whether it may be sent anything, whether or not it has room."""
        present = self.by_session.get(worker.session) is worker and worker.breaker.state is BreakerState.CLOSED
        return present and worker.state is not WorkerState.DRAINING and worker.name not in self.paused

    def show(self, step: Step, worker: Worker) -> None:
        """Publish a worker as it is now; what it holds, counts and measures may wait for `tell`. What is worth showing
        may matter to placement, too."""
        self.touch(worker.name)
        standing = self._standing(worker)
        if standing == worker.told:
            self.untold[worker.name] = None
            return
        worker.told = standing
        self.untold.pop(worker.name, None)
        step.published.append(WorkerChanged(stream="", serial=0, worker=self.view(worker)))

    def tell(self, step: Step) -> None:
        """Publish the workers that have waited for it, as they are now."""
        untold, self.untold = self.untold, {}
        known = (self.by_name[name] for name in untold if name in self.by_name)
        step.published += [WorkerChanged(stream="", serial=0, worker=self.view(worker)) for worker in known]

    def _standing(self, worker: Worker) -> Standing:
        # Busy or ready is what it holds, and changes with every job.
        state = WorkerState.READY if worker.state is WorkerState.BUSY else worker.state
        return Standing(state, worker.name in self.paused, worker.breaker.state, worker.breaker.why)

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
            contested=len(health.contests) >= CONTESTS,
            held=tuple(
                Held(job_id=job_id, attempt=job.record.attempt, phase=job.phase)
                for job_id, job in worker.jobs.items()
                if job.phase is not None
            )[:64],
            succeeded=worker.succeeded,
            failed=worker.failed,
            since_utc_ms=worker.since_utc_ms,
            resident=worker.resident[-64:],
            jobs_per_hour=worker.done.count,
            speed=worker.speed,
            load_ms=worker.load_ms,
        )

    def _forget_unused(self) -> None:
        """Keep only the documents that a present worker names: a digest may change at every new file on a disk."""
        used = {worker.announced.capabilities for worker in self.by_session.values()}
        self._offers = {digest: offer for digest, offer in self._offers.items() if digest in used}
        self._serves.clear()
