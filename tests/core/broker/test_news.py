"""What a turn tells of all that changed: each thing once, as it is at the end."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from broker.core.jobs import Job
from broker.core.news import newest
from broker.protocol.events import JobGone, JobPreview, JobProgress, StatsChanged, WorkerChanged, WorkerGone
from broker.protocol.records import JobState, ProgressKind
from tests.core.broker.given import Given, job_id


@pytest.fixture
def raw() -> dict[type[Any], Any]:
    """One event of each kind."""
    broker = Given()
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.reports(job, 1, ProgressKind.PREVIEW)
    gpu.reports(job, 2)
    broker.passes(2_000, gpu)
    found = {type(message): message for message in broker.published}
    return {
        **found,
        Job: copy.copy(broker.fleet.jobs.live[job]),
        WorkerGone: WorkerGone(stream="", serial=0, worker="gpu-0"),
    }


def job_in(job: Job, state: JobState, number: int = 1) -> Job:
    return dataclasses.replace(job, record=dataclasses.replace(job.record, job_id=job_id(number), state=state))


def test_the_last_event_of_each_thing_stands_where_it_happened(raw: dict[type[Any], Any]) -> None:
    queued, leased = (job_in(raw[Job], state) for state in (JobState.QUEUED, JobState.LEASED))
    other = job_in(raw[Job], JobState.QUEUED, 2)
    worker, stats = raw[WorkerChanged], raw[StatsChanged]
    assert newest([queued, worker, stats, other, leased, stats]) == [worker, other, leased, stats]
    assert newest([]) == []


def test_a_worker_that_leaves_and_comes_back_is_there_and_the_other_way_round(raw: dict[type[Any], Any]) -> None:
    here, gone = raw[WorkerChanged], raw[WorkerGone]
    assert newest([here, gone, here]) == [here]
    assert newest([gone, here, gone]) == [gone]


def test_a_job_that_is_deleted_is_told_to_be_gone_and_nothing_else_of_it(raw: dict[type[Any], Any]) -> None:
    gone = JobGone(stream="", serial=0, job_id=job_id(1), owner="ann")
    assert newest([raw[JobProgress], raw[Job], gone]) == [gone]
    assert newest([raw[Job], gone, raw[WorkerChanged]]) == [gone, raw[WorkerChanged]]


def test_progress_gives_way_to_the_jobs_own_event_that_shows_it(raw: dict[type[Any], Any]) -> None:
    progress: JobProgress = raw[JobProgress]
    further = dataclasses.replace(progress, progress=dataclasses.replace(progress.progress, fraction=0.9))
    shows = dataclasses.replace(raw[Job], progress=progress.progress)
    assert newest([progress, shows]) == [shows]
    assert newest([shows, progress]) == [shows]
    assert newest([shows, further]) == [shows, further]
    assert newest([progress, further]) == [further]


def test_of_previews_the_last_of_each_job_is_kept(raw: dict[type[Any], Any]) -> None:
    first: JobPreview = raw[JobPreview]
    second, other = dataclasses.replace(first, image=b"2"), dataclasses.replace(first, job_id=job_id(2))
    assert newest([first, other, second]) == [other, second]


def test_what_is_no_event_is_not_told() -> None:
    with pytest.raises(TypeError, match="no event"):
        newest([object()])
