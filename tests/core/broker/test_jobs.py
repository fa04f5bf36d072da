"""The life of a job: the table holds, and each move leaves its write, its line and its event behind."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from broker.core.jobs import InvalidTransition, Job, Jobs, view
from broker.core.model import JOB_MOVES
from broker.core.rules import Now
from broker.core.step import AddStory, InsertJob, Step, UpdateJob
from broker.protocol.records import JobState, Phase, Reason
from tests.core.broker.given import OUTPUT, UTC_MS, because, drained, job_id, jobs_of, record

NOW = Now(mono_ms=7_000, utc_ms=UTC_MS + 7_000)
PAIRS = list(itertools.product(JobState, JobState))
LEGAL = [(a, b) for a, b in PAIRS if b in JOB_MOVES[a]]
ILLEGAL = [(a, b) for a, b in PAIRS if b not in JOB_MOVES[a]]


def jobs_with(*states: JobState) -> Jobs:
    """Jobs 1, 2, …, live or not, each as the store would hand it over."""
    jobs = jobs_of({state: list(states).count(state) for state in JobState}, last_sequence=len(states))
    for number, state in enumerate(states, start=1):
        jobs.recover(record(number, state=state, attempt=1, worker="gpu-0"))
    jobs.backlog.fill((job.record, 0) for job in jobs.live.values() if job.record.state is JobState.QUEUED)
    return jobs


def seen(jobs: Jobs) -> Any:
    live = {job_id: (job.record, job.not_before_ms) for job_id, job in jobs.live.items()}
    return live, +jobs.counts, +jobs.queued_of, dict(jobs.backlog._entry), jobs.sequence


def moved(jobs: Jobs, state: JobState, number: int = 1, **changes: Any) -> tuple[Job, Step]:
    step = Step()
    return jobs.move(step, jobs.live[job_id(number)], state, NOW, "why", **changes), step


def test_the_table_knows_every_state_and_no_end_but_by_a_persons_wish() -> None:
    assert JOB_MOVES.keys() == set(JobState)
    assert not JOB_MOVES[JobState.SUCCEEDED]
    assert JOB_MOVES[JobState.FAILED] == JOB_MOVES[JobState.CANCELLED] == {JobState.QUEUED}
    assert (len(LEGAL), len(ILLEGAL)) == (17, 32)


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_a_move_that_is_not_in_the_table_changes_nothing(before: JobState, after: JobState) -> None:
    jobs, step = jobs_with(before), Step()
    was = seen(jobs)
    with pytest.raises(InvalidTransition, match=rf"{job_id(1)}: {before} -> {after} \(why\); attempt 1"):
        jobs.move(step, jobs.live[job_id(1)], after, NOW, "why", worker="another")
    assert seen(jobs) == was and step == Step()


@pytest.mark.parametrize(("before", "after"), LEGAL)
def test_a_move_writes_the_record_a_line_and_an_event(before: JobState, after: JobState) -> None:
    jobs = jobs_with(before)
    job, step = moved(jobs, after, worker="gpu-7")
    assert job.record.state is after and job.record.worker == "gpu-7"
    update, story = step.writes
    assert update == UpdateJob(job.record)
    assert isinstance(story, AddStory)
    assert (story.line.what, story.line.text, story.line.worker, story.line.attempt) == (after, "why", "gpu-7", 1)
    assert story.line.utc_ms == NOW.utc_ms
    assert step.published == [job]
    assert +jobs.counts == {after: 1}


@pytest.mark.parametrize("state", [state for state in JobState if state.terminal])
def test_a_job_that_is_over_is_the_stores_alone(state: JobState) -> None:
    jobs = jobs_with(JobState.CANCELLING)
    job, _ = moved(jobs, state)
    assert not jobs.live and job.record.finished_utc_ms == NOW.utc_ms


def test_only_a_queued_job_is_in_the_backlog_and_counts_for_its_owner() -> None:
    jobs = jobs_with(JobState.QUEUED, JobState.RUNNING)
    assert len(jobs.backlog) == 1 and jobs.queued_of == {"ann": 1}
    moved(jobs, JobState.LEASED)
    assert not len(jobs.backlog) and not jobs.queued_of
    moved(jobs, JobState.QUEUED, number=2)
    assert job_id(2) in jobs.backlog and jobs.queued_of == {"ann": 1}


def test_a_new_job_is_written_whole_with_its_first_line() -> None:
    jobs, step = jobs_of({}, last_sequence=0), Step()
    job = jobs.insert(step, record(), b"workflow", b"form")
    insert, story = step.writes
    assert insert == InsertJob(job.record, b"workflow", b"form")
    assert isinstance(story, AddStory) and story.line.what == "queued"
    assert len(step.published) == 1 and job_id(1) in jobs.backlog


def test_a_job_backing_off_waits_outside_the_backlog_and_counts_all_the_same() -> None:
    jobs = jobs_with(JobState.RUNNING)
    jobs.live[job_id(1)].not_before_ms = 9_000
    job, _ = moved(jobs, JobState.QUEUED)
    assert not len(jobs.backlog) and jobs.queued_of == {"ann": 1}
    jobs.amend(Step(), job, priority=5)
    assert not len(jobs.backlog) and jobs.queued_of == {"ann": 1}
    jobs.ready_again(job)
    assert job_id(1) in jobs.backlog and not job.not_before_ms


def test_a_backoff_that_ends_when_the_job_runs_again_puts_nothing_in_the_backlog() -> None:
    jobs = jobs_with(JobState.QUEUED)
    job, _ = moved(jobs, JobState.LEASED)
    jobs.ready_again(job)
    assert not len(jobs.backlog)


def test_amending_a_queued_job_moves_it_in_the_queue_and_tells_no_story() -> None:
    jobs, step = jobs_with(JobState.QUEUED, JobState.QUEUED), Step()
    jobs.amend(step, jobs.live[job_id(2)], priority=1)
    assert drained(jobs.backlog) == [job_id(2), job_id(1)]
    assert step.writes == [UpdateJob(jobs.live[job_id(2)].record)] and len(step.published) == 1


def test_a_job_asked_for_again_begins_anew_but_keeps_its_number_of_attempts() -> None:
    jobs, step = jobs_of({JobState.FAILED: 1}, last_sequence=1), Step()
    over = record(
        state=JobState.FAILED, attempt=3, burnt=3, deaths=2, worker="gpu-0", last_worker="gpu-0", prompt_id="p",
        pin="gpu-0", failure=because(Reason.STALLED), outputs=(OUTPUT,), started_utc_ms=1, finished_utc_ms=2,
    )  # fmt: skip
    job = jobs.revive(step, over, NOW)
    assert job.record == record(state=JobState.QUEUED, attempt=3, pin="gpu-0")
    assert jobs.live == {job_id(1): job} and +jobs.counts == {JobState.QUEUED: 1}
    assert job_id(1) in jobs.backlog


def test_a_job_that_succeeded_is_not_asked_for_again() -> None:
    jobs, step = jobs_of({JobState.SUCCEEDED: 1}, last_sequence=1), Step()
    with pytest.raises(InvalidTransition):
        jobs.revive(step, record(state=JobState.SUCCEEDED), NOW)
    assert not jobs.live and not len(jobs.backlog) and step == Step()


def test_the_oldest_queued_job_is_found_behind_those_that_run() -> None:
    jobs = jobs_with(JobState.RUNNING, JobState.LEASED)
    assert jobs.oldest_queued_utc_ms() is None
    jobs.insert(Step(), record(3, created_utc_ms=UTC_MS + 3), b"", b"")
    jobs.insert(Step(), record(4, created_utc_ms=UTC_MS + 4), b"", b"")
    assert jobs.oldest_queued_utc_ms() == UTC_MS + 3


def test_a_view_shows_what_is_volatile_only_while_the_job_lives() -> None:
    job = Job(record(state=JobState.RUNNING, attempt=1, worker="gpu-0"), phase=Phase.RUNNING)
    assert view(job.record, job).phase is Phase.RUNNING
    assert view(job.record, None).phase is None
