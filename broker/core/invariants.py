"""What must hold of the core after every event, whatever happened. Called by tests, never in service.

Each line is a promise another part relies on; a failure says which one and about whom.
"""

from __future__ import annotations

from itertools import pairwise

from broker.core.fleet import Fleet
from broker.core.rooms import Tier, is_shut
from broker.core.roster import HELD_MOST
from broker.protocol.records import JobState, WorkerState

HELD = (JobState.LEASED, JobState.RUNNING, JobState.CANCELLING)


def check(fleet: Fleet) -> None:
    """Raises AssertionError naming the first broken promise."""
    _check_jobs(fleet)
    _check_workers(fleet)
    _check_stands(fleet)
    counted = {state: 0 for state in JobState}
    for job in fleet.jobs.live.values():
        counted[job.record.state] += 1
    for state in (JobState.QUEUED, *HELD):
        assert fleet.jobs.counts[state] == counted[state], f"{state}: counted {fleet.jobs.counts[state]}"


def _check_jobs(fleet: Fleet) -> None:
    orphans = {job_id: name for name, ids in fleet.leases.orphans.items() for job_id in ids}
    for job_id, job in fleet.jobs.live.items():
        state, where = job.record.state, f"job {job_id} ({job.record.state})"
        assert job_id == job.record.job_id, f"{where} is filed under another id"
        assert not state.terminal, f"{where} is over, yet live"
        if state is JobState.QUEUED:
            assert not job.session and job_id not in orphans, f"{where} is queued and held"
            waits = job_id in fleet.jobs.backlog
            assert waits or job.not_before_ms, f"{where} is neither in the backlog nor backing off"
            continue
        assert job_id not in fleet.jobs.backlog, f"{where} is held and in the backlog"
        assert job.record.attempt >= 1, f"{where} is held without an attempt"
        assert job.record.worker, f"{where} is held by nobody"
        if job.session:
            holder = fleet.roster.by_session.get(job.session)
            assert holder is not None, f"{where} is held by a session that is over"
            assert holder.jobs.get(job_id) is job, f"{where} and its holder disagree"
            assert holder.name == job.record.worker, f"{where} is held by {holder.name}, not {job.record.worker}"
            assert job_id not in orphans, f"{where} is held and orphaned"
        else:
            assert orphans.get(job_id) == job.record.worker, f"{where} has neither a session nor a name to wait for"
    for job_id in orphans:
        assert job_id in fleet.jobs.live, f"job {job_id} is over, yet somebody's orphan"
    for name, ids in fleet.leases.orphans.items():
        assert ids, f"{name} is expected back with nothing"


def _check_workers(fleet: Fleet) -> None:
    for session, present in fleet.roster.by_session.items():
        assert present.session == session, f"{present.name} is filed under another session"
        assert fleet.roster.by_name.get(present.name) is present, f"{present.name} has two sessions"
        assert len(present.jobs) <= HELD_MOST, f"{present.name} holds {len(present.jobs)}, more than it can name"
        for job_id, job in present.jobs.items():
            assert fleet.jobs.live.get(job_id) is job, f"{present.name} holds job {job_id}, which is over"
            assert job.session == session, f"{present.name} holds job {job_id}, which another session has"
        if present.state is WorkerState.READY:
            assert not present.jobs, f"{present.name} is ready and holds {len(present.jobs)}"
    order = [present.silent_by_ms for present in fleet.roster.by_session.values()]
    assert all(before <= after for before, after in pairwise(order)), "who was heard longest ago is not the first"


def _check_stands(fleet: Fleet) -> None:
    """Placement knows every worker as it is, but those that it will look at again before it goes on."""
    roster, rooms, estimates = fleet.roster, fleet.placing.rooms, fleet.leases.estimates
    for present in roster.by_session.values():
        name, stand = present.name, rooms.stand(present.name)
        if name in roster.touched:
            continue
        assert (stand is not None) == roster.may_work(present), f"{name} may work, or not, unknown to placement"
        if stand is None:
            continue
        room = Tier.FULL if present.room() <= 0 else Tier.ROOM if present.jobs else Tier.IDLE
        assert (stand.worker, stand.tier) == (present, room), f"{name} has more or less room than placement believes"
        assert stand.shut == is_shut(present), f"{name} is waited for, or not, against what it has told"
        held = present.will_hold(estimates.size_bytes)
        assert (stand.models, stand.speed) == (held, estimates.speed(name)), f"{name} holds {held}, or has learnt more"
        assert stand.busy_for_others == bool(present.others.prompts), f"{name} is busy for others, or not any more"
