"""The simulation must bite: each classic mistake, put into the core on purpose, is found within the seeds CI runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from broker.core import hearing, leases
from broker.core.events import FromClient, FromWorker, Unreachable
from broker.core.fleet import Fleet
from broker.core.jobs import InvalidTransition, Job, Jobs
from broker.core.leases import Leases
from broker.core.roster import Roster, Worker
from broker.core.rules import Now
from broker.core.step import Step
from broker.protocol import worker as wire
from broker.protocol.records import Failure, JobState
from broker.protocol.value import replace
from broker.store.api import Store
from broker.turn import Outbound, Turn
from tests.core.simulation.model_worker import Attempt, ModelWorker
from tests.core.simulation.world import World

SEEDS = 500
Patch = pytest.MonkeyPatch


def heartbeat_taken_as_ready(patch: Patch) -> dict[str, Any]:
    right = hearing.HANDLERS[wire.Heartbeat]

    def wrong(held: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
        right(held, step, speaker, event, now)
        serial = speaker.ready.serial if speaker.ready is not None else 0
        speaker.ready = wire.Ready(serial=serial, credits=1, seen=1 << 40)

    patch.setitem(hearing.HANDLERS, wire.Heartbeat, wrong)
    return {}


def fence_removed(patch: Patch) -> dict[str, Any]:
    def wrong(self: Leases, step: Step, holder: Worker, job_id: str, attempt: int) -> Job | None:
        return self.jobs.live.get(job_id)

    patch.setattr(Leases, "fenced", wrong)
    return {}


def requeue_forgotten(patch: Patch) -> dict[str, Any]:
    right = Jobs.move

    def wrong(self: Jobs, step: Step, job: Job, state: JobState, *rest: Any, **changes: Any) -> Job:
        moved = right(self, step, job, state, *rest, **changes)
        if state is JobState.QUEUED and rest[1].startswith("worker_lost"):
            self.backlog.discard(job.record.job_id)
            job.not_before_ms = 1 << 60
        return moved

    patch.setattr(Jobs, "move", wrong)
    return {}


class SendsBeforeCommit(Turn):
    """Lets everything out at once; the commit comes with the next turn, if there is one."""

    def take(
        self, from_workers: Iterable[FromWorker | Unreachable], from_clients: Iterable[FromClient], now: Now
    ) -> Outbound:
        self.store.commit()
        commit = self.store.commit
        self.store.commit = lambda: None  # type: ignore[method-assign]
        try:
            return super().take(from_workers, from_clients, now)
        finally:
            self.store.commit = commit  # type: ignore[method-assign]


def send_before_commit(patch: Patch) -> dict[str, Any]:
    return {"make_turn": SendsBeforeCommit}


class DropsResults(ModelWorker):
    """Forgets a result as soon as it is sent, as if sending were delivery."""

    def _end(self, attempt: Attempt, end: Any) -> None:
        super()._end(attempt, end)
        self.ends.pop(attempt)
        self.held.pop(attempt)
        self.ready()


def result_dropped_before_recorded(patch: Patch) -> dict[str, Any]:
    return {"make_worker": DropsResults}


class TakesFilesForGranted(Turn):
    """Counts a result whose files are still on their way, or lost."""

    def __init__(self, fleet: Fleet, store: Store, has_file: Callable[[str], bool], *more: Any) -> None:
        super().__init__(fleet, store, lambda sha256: True, *more)


class SaysRoomOnce(ModelWorker):
    """Takes it for granted that its word of its room arrived."""

    def hear(self, message: Any) -> None:
        super().hear(replace(message, ready=1 << 40) if isinstance(message, wire.Beat) else message)


def room_not_said_again(patch: Patch) -> dict[str, Any]:
    return {"make_worker": SaysRoomOnce}


def news_of_room_not_looked_at(patch: Patch) -> dict[str, Any]:
    right = hearing.HANDLERS[wire.Ready]

    def wrong(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
        touched = dict(leases.roster.touched)
        right(leases, step, speaker, event, now)
        leases.roster.touched = touched

    patch.setitem(hearing.HANDLERS, wire.Ready, wrong)
    return {}


def result_counted_before_its_files(patch: Patch) -> dict[str, Any]:
    return {"make_turn": TakesFilesForGranted}


def lease_never_ends(patch: Patch) -> dict[str, Any]:
    right = Roster.heard
    patch.setattr(Roster, "heard", lambda self, worker, silent_by_ms: right(self, worker, 1 << 50))
    return {}


def attempts_not_counted(patch: Patch) -> dict[str, Any]:
    right = leases.Leases._lease

    def wrong(self: Leases, step: Step, job: Job, *rest: Any, attempt: int, **changes: Any) -> None:
        right(self, step, job, *rest, attempt=1, **changes)

    patch.setattr(Leases, "_lease", wrong)
    return {}


def cancel_forgotten_at_lease_end(patch: Patch) -> dict[str, Any]:
    right = Leases.ended

    def wrong(self: Leases, step: Step, job: Job, why: Failure, now: Now, **changes: Any) -> None:
        if job.record.state is JobState.CANCELLING:
            self.release(job)
            return
        right(self, step, job, why, now, **changes)

    patch.setattr(Leases, "ended", wrong)
    return {}


@pytest.mark.parametrize(
    "mutate",
    [
        heartbeat_taken_as_ready,
        fence_removed,
        requeue_forgotten,
        send_before_commit,
        result_dropped_before_recorded,
        room_not_said_again,
        news_of_room_not_looked_at,
        result_counted_before_its_files,
        lease_never_ends,
        attempts_not_counted,
        cancel_forgotten_at_lease_end,
    ],
)
def test_a_mutation_is_found(mutate: Callable[[Patch], dict[str, Any]], monkeypatch: Patch) -> None:
    changed = mutate(monkeypatch)
    for seed in range(1, SEEDS + 1):
        try:
            found = World(seed, **changed).run()
        except (AssertionError, KeyError, InvalidTransition) as e:
            found = [f"invariant: {e}"]
        if found:
            print(f"{mutate.__name__}: seed {seed}: {found[0][:160]}")
            return
    pytest.fail(f"{mutate.__name__} went unnoticed for {SEEDS} seeds")


def test_the_unmutated_core_passes_the_seeds_that_find_mutations() -> None:
    assert all(not World(seed, make_fleet=Fleet).run() for seed in range(1, 21))
