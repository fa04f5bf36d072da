"""Nobody waits for ever: a patient job in a fleet of several workers, none like the other, that never has enough."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.core import backlog, placing
from broker.protocol.records import Phase, ProgressKind, Timings
from broker.protocol.worker import Complete
from tests.core.broker.given import NEEDS, Given, Session, held
from tests.core.broker.test_placing import PONY, XL, needing, ran_each, runs, worker

LOAD_MS = 5_000
#: Seconds after which it has waited for ever: many times what all bounds together allow here.
FOR_EVER = 600


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    slots: int
    #: How long a job runs there.
    run_ms: int
    #: What it has on its disk.
    models: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """Jobs of which another one comes whenever one is done. An owner "" is a new one each time."""

    owner: str
    model: str
    priority: int
    deadline_ms: int | None


class Runs:
    """A worker that runs one job after the other, and loads a model that the last one had not."""

    def __init__(self, broker: Given, name: str, machine: Machine, digest: str) -> None:
        self.machine = machine
        self.session: Session = broker.worker(name, capabilities=digest)
        self.session.announces()
        self.session.offers(*NEEDS.nodes, models=machine.models)
        self.session.has_room(machine.slots)
        self._broker = broker
        self._loaded = ""
        self._done_ms = 0
        self._running: tuple[str, int] | None = None

    def goes_on(self) -> int:
        """What it does in this second; answers how many jobs it has done."""
        done = 0
        if self._running is not None and self._broker.now_ms >= self._done_ms:
            (job, attempt), self._running, done = self._running, None, 1
            timings = Timings(
                staging_ms=0, waiting_ms=0, running_ms=self._took_ms, loading_ms=self._load_ms, finishing_ms=0
            )
            self.session.says(Complete(job_id=job, attempt=attempt, outputs=(), timings=timings))
        mine = [(job.record.job_id, job.record.attempt) for job in self._broker.held_by(self.session)]
        if self._running is None and mine:
            self._begin(*mine[0])
        phases = (Phase.RUNNING if one == self._running else Phase.STAGED for one in mine)
        self.session.beats(*(held(*one, phase) for one, phase in zip(mine, phases, strict=True)))
        self.session.has_room(self.machine.slots - len(mine))
        return done

    def _begin(self, job: str, attempt: int) -> None:
        (model,) = self._broker.records[job].needs.models
        self._load_ms = 0 if model == self._loaded else LOAD_MS
        self._loaded, self._running = model, (job, attempt)
        self._took_ms = self._load_ms + self.machine.run_ms
        self._done_ms = self._broker.now_ms + self._took_ms
        self.session.accepts(job, attempt)
        self.session.reports(job, 1, ProgressKind.STARTED, attempt)


MACHINES = st.builds(
    Machine,
    slots=st.sampled_from((1, 2)),
    run_ms=st.sampled_from((1_000, 3_000, 10_000)),
    models=st.sampled_from(((XL,), (PONY,), (XL, PONY))),
)
STREAMS = st.builds(
    Stream,
    owner=st.sampled_from(("zoe", "ann", "bob", "")),
    model=st.sampled_from((XL, PONY)),
    priority=st.sampled_from((-1, 0, 3)),
    deadline_ms=st.sampled_from((None, 300_000)),
)
BOTH = (XL, PONY)
FAST, SLOW = Machine(2, 1_000, BOTH), Machine(1, 10_000, BOTH)


@given(
    st.lists(MACHINES, min_size=2, max_size=4).filter(lambda many: any(PONY in one.models for one in many)),
    st.lists(STREAMS, min_size=1, max_size=4),
)
@example([FAST, SLOW, SLOW], [Stream("", XL, 3, None)])
@example([FAST, Machine(2, 3_000, (PONY,))], [Stream("zoe", PONY, -1, 300_000), Stream("ann", PONY, 3, None)])
# What other workers could do as well went ahead to the only one that has PONY, so that this was never idle.
@example([Machine(2, 3_000, (XL,)), FAST, Machine(1, 1_000, (XL,))], [Stream("ann", XL, 0, None)])
@settings(max_examples=8)
def test_nobody_waits_for_ever(machines: list[Machine], streams: list[Stream]) -> None:
    """More than the fleet can do comes in behind one patient job: whoever's, whatever it needs, however urgent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog, "PLACES", 10)
        patch.setattr(placing, "BY_AGE", 4)
        broker = Given()
        digests = {models: f"{n}" * 64 for n, models in enumerate(dict.fromkeys(one.models for one in machines))}
        workers = [Runs(broker, f"gpu-{n}", one, digests[one.models]) for n, one in enumerate(machines)]
        patient, number = broker.submitted(1, needs=needing(PONY), owner="zoe", priority=-1), 1
        wanted = 2 * sum(one.slots for one in machines)
        for _ in range(FOR_EVER):
            for _ in range(wanted):
                number += 1
                stream = streams[number % len(streams)]
                broker.submitted(
                    number,
                    needs=needing(stream.model),
                    owner=stream.owner or f"new-{number}",
                    priority=stream.priority,
                    deadline_ms=stream.deadline_ms,
                )
            broker.now_ms += 1_000
            broker.tick()
            if broker.records[patient].attempt:
                return
            wanted = sum(worker.goes_on() for worker in workers)
    raise AssertionError(f"it has seen {number} others come in")


def test_who_waits_for_a_fast_worker_keeps_nobody_from_an_idle_one_for_ever(
    broker: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More owners than a turn looks at have always another job for the fast one; one job is for the slow one alone."""
    monkeypatch.setattr(backlog, "PLACES", 10)
    picture = dataclasses.replace(NEEDS, pixels=1 << 20, steps=20)
    fast, slow = worker(broker, "fast"), worker(broker, "slow", labels=("cpu",))
    ran_each(broker, picture, (fast, 1_000))
    ran_each(broker, picture, (slow, 100_000), number=200)
    for number in range(placing.LOOKS + 1):
        broker.submitted(1_000 + number, needs=picture, owner=f"owner-{number}")
    patient = broker.submitted(1, needs=dataclasses.replace(picture, labels=("cpu",)), owner="zoe", priority=-1)
    for number in range(2_000, 2_100):
        broker.tick()
        if broker.records[patient].attempt:
            return
        (job,) = (one.record for one in broker.held_by(fast))
        runs(fast, job.job_id, 1_000)
        slow.beats(gpu_busy=0.0)
        broker.submitted(number, needs=picture, owner=job.owner)
    raise AssertionError("the slow one was idle all the time")
