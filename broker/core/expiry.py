"""The end of jobs that are not begun in time: a deadline counts while a job waits, no longer once a worker has it."""

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


def watch(deadlines: Deadlines, job: Job, now: Now) -> None:
    """Look at a job that waits once its deadline has come, if it has one."""
    if job.record.deadline_utc_ms is not None:
        left_ms = max(0, job.record.deadline_utc_ms - now.utc_ms)
        deadlines.at(now.mono_ms + min(left_ms, LOOK_MS), "expire", job.record.job_id)


def fallen(step: Step, jobs: Jobs, deadlines: Deadlines, job: Job, now: Now) -> None:
    """Its deadline has come; it may have been begun since."""
    deadline_utc_ms = job.record.deadline_utc_ms
    if job.record.state is not JobState.QUEUED or deadline_utc_ms is None:
        return
    if now.utc_ms < deadline_utc_ms:
        watch(deadlines, job, now)
        return
    text = "its deadline passed before a worker could begin it"
    jobs.move(step, job, JobState.FAILED, now, text, failure=failure(Reason.EXPIRED, text))
