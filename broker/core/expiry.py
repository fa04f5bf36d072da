"""Deadlines of jobs: the nearer one is, the sooner its job goes, and one that is not begun in time fails.

A deadline counts while a job waits, no longer once a worker has it. It moves a job before others of the same owner and
priority, and before nobody else's: whoever sets deadlines gets no more of the fleet by it. Nearness is told in halves
of an hour, so that a job is moved a few times in its life, however long it waits.
"""

from __future__ import annotations

from typing import Final

from broker.core.deadlines import Deadlines
from broker.core.jobs import Job, Jobs
from broker.core.retry import failure
from broker.core.rules import Now
from broker.core.step import Step
from broker.protocol.records import JobState, Reason

#: How often is looked at least: what is to be looked at later is kept until then, though the job may be long over.
LOOK_MS: Final = 10 * 60_000
#: A deadline is near from so long before it on; each half of that is nearer by one, so often.
NEAR_MS: Final = 60 * 60_000
NEAREST: Final = 12


def nearness(left_ms: int) -> int:
    """How near a deadline is until which so much is left; 0 = not yet."""
    return min(NEAREST, (NEAR_MS // max(1, left_ms)).bit_length())


def watch(jobs: Jobs, deadlines: Deadlines, job: Job, now: Now) -> None:
    """Look at a job that waits once its deadline has come nearer, if it has one."""
    if job.record.deadline_utc_ms is None:
        return
    left_ms = max(0, job.record.deadline_utc_ms - now.utc_ms)
    near = nearness(left_ms)
    jobs.comes_near(job, near)
    nearer_ms = left_ms - (NEAR_MS >> near) if near < NEAREST else left_ms
    deadlines.at(now.mono_ms + min(nearer_ms, LOOK_MS), "expire", job.record.job_id)


def fallen(step: Step, jobs: Jobs, deadlines: Deadlines, job: Job, now: Now) -> None:
    """Its deadline has come, or come nearer; it may have been begun since."""
    deadline_utc_ms = job.record.deadline_utc_ms
    if job.record.state is not JobState.QUEUED or deadline_utc_ms is None:
        return
    if now.utc_ms < deadline_utc_ms:
        watch(jobs, deadlines, job, now)
        return
    text = "its deadline passed before a worker could begin it"
    jobs.move(step, job, JobState.FAILED, now, text, failure=failure(Reason.EXPIRED, text))
