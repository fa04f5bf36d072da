"""The stream of one job: each change until its end, whatever was missed meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import gevent
import pytest

from broker.protocol import client
from broker.protocol.records import JobState
from tests.web import fake_broker
from tests.web.fake_broker import FakeBroker, a_job, an_output
from tests.web.stage import PATIENCE_S, Stage, staged, until


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def test_a_job_is_followed_to_its_end(stage: Stage) -> None:
    job = stage.broker.put(a_job())
    connection = stage.raw(
        f"GET /api/v1/jobs/{job.job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    )
    head = connection.head()
    assert b"Content-Type: text/event-stream" in head
    until(lambda: len(stage.web.watch))
    stage.broker.change(job.job_id, state=JobState.RUNNING, attempt=1)
    until(lambda: connection.more() and b'"state":"running"' in connection.buffer)
    stage.broker.progress(job.job_id, 10)
    until(lambda: connection.more() and b'"fraction":0.5' in connection.buffer)
    stage.broker.change(job.job_id, state=JobState.SUCCEEDED, outputs=(an_output(b"x"),))
    events = connection.rest()
    assert events.count(b"event: job\n") >= 4
    assert b'"state":"succeeded"' in events
    until(lambda: len(stage.web.watch) == 0)


def test_a_job_that_is_over_is_told_once(shared: Stage) -> None:
    job = shared.broker.put(a_job(state=JobState.CANCELLED))
    answer = shared.get(f"/api/v1/jobs/{job.job_id}/events")
    assert answer.body.count(b"event: job\n") == 1


def test_a_job_that_was_asked_for_again_is_followed_though_no_event_has_told_of_it_yet(stage: Stage) -> None:
    job = stage.broker.put(a_job(state=JobState.CANCELLED))
    until(lambda: stage.web.hub.job(job.job_id))
    stage.broker.jobs[job.job_id] = dataclasses.replace(job, state=JobState.QUEUED)
    connection = stage.raw(
        f"GET /api/v1/jobs/{job.job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    )
    until(lambda: len(stage.web.watch))
    stage.broker.change(job.job_id, state=JobState.FAILED)
    events = connection.rest()
    assert [state for state in (b"queued", b"cancelled", b"failed") if b'"state":"%s"' % state in events] == [
        b"queued",
        b"failed",
    ]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_job_whose_end_was_missed_is_followed_to_it_though_no_snapshot_holds_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    job = stage.broker.put(a_job(state=JobState.RUNNING, attempt=1))
    until(lambda: stage.web.hub.job(job.job_id))
    connection = stage.raw(
        f"GET /api/v1/jobs/{job.job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    )
    until(lambda: connection.more() and b'"state":"running"' in connection.buffer)
    # The others that ended since are more than a snapshot holds.
    monkeypatch.setitem(fake_broker.ANSWERS, client.Snapshot, _without(job.job_id))
    if is_kept:
        stage.broker.jobs[job.job_id] = dataclasses.replace(job, state=JobState.SUCCEEDED)
    else:
        del stage.broker.jobs[job.job_id]
    stage.broker.serial += 1
    stage.broker.put(a_job())
    assert (b'"state":"succeeded"' in connection.rest()) is is_kept
    until(lambda: len(stage.web.watch) == 0)


def _without(job_id: str) -> Callable[[FakeBroker, client.Snapshot], client.SnapshotReply]:
    def answer(broker: FakeBroker, asked: client.Snapshot) -> client.SnapshotReply:
        whole: client.SnapshotReply = broker._snapshot(asked)
        return dataclasses.replace(whole, jobs=tuple(job for job in whole.jobs if job.job_id != job_id))

    return answer


def test_a_stream_ends_when_the_process_does() -> None:
    with staged() as stage:
        job = stage.broker.put(a_job())
        following = gevent.spawn(stage.get, f"/api/v1/jobs/{job.job_id}/events")
        until(lambda: len(stage.web.watch))
        stage.web.stop()
        assert following.get(timeout=PATIENCE_S).status == 200
        stage.web = stage._start()
