"""What clients ask for: each request gets one answer, and a refusal changes nothing and says what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from broker import reading
from broker.core.admission import HANDLERS
from broker.core.events import FromClient
from broker.core.rules import Rules
from broker.core.submits import body_sha256
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.codec import ADMIN_SENDS, TYPES
from broker.protocol.events import JobGone
from broker.protocol.records import InputFile, JobState, Phase, Reason, WorkerState
from tests.core.broker.given import CLIENT, NEEDS, REQUEST, UTC_MS, Given, held, job_id, submit_of

TERMINAL = [state for state in JobState if state.terminal]
HELD = [JobState.LEASED, JobState.RUNNING, JobState.CANCELLING]
UNKNOWN = job_id(404)


def pin(job: str, worker: str = "gpu-0") -> client.Pin:
    return client.Pin(request_id=REQUEST, job_id=job, worker=worker)


def reorder(job: str, priority: int = 5) -> client.Reorder:
    return client.Reorder(request_id=REQUEST, job_id=job, priority=priority)


def pause(worker: str = "") -> client.Pause:
    return client.Pause(request_id=REQUEST, worker=worker)


def resume(worker: str = "") -> client.Resume:
    return client.Resume(request_id=REQUEST, worker=worker)


def drain(worker: str) -> client.DrainWorker:
    return client.DrainWorker(request_id=REQUEST, worker=worker)


def refused(broker: Given, message: Any) -> client.Error:
    """The refusal of a request, which wrote, sent and published nothing."""
    records, told, story = dict(broker.records), len(broker.published), {k: len(v) for k, v in broker.story.items()}
    got = {session: len(one.got) for session, one in broker.sessions.items()}
    reply = broker.asks(message)
    assert isinstance(reply, client.Error), reply
    assert (records, told) == (broker.records, len(broker.published))
    assert story == {k: len(v) for k, v in broker.story.items()}
    assert got == {session: len(one.got) for session, one in broker.sessions.items()}
    return reply


def test_every_request_of_a_client_is_answered_by_the_core_or_by_reading() -> None:
    assert not HANDLERS.keys() & reading.HANDLERS.keys()
    assert HANDLERS.keys() | reading.HANDLERS.keys() == {TYPES[tag] for tag in ADMIN_SENDS}


# ---- submit


def test_a_job_is_accepted_with_all_that_was_said_of_it(broker: Given) -> None:
    files = (InputFile(name="a.png", sha256="a" * 64, size_bytes=1),)
    said = submit_of(
        idempotency_key="k", title="t", template="text-to-image", labels=("x",), priority=3, files=files, form=b"{}"
    )
    reply = broker.asks(said)
    kept = broker.records[said.job_id]
    assert reply.job.state is JobState.QUEUED and not reply.existed
    assert (kept.owner, kept.title, kept.template, kept.labels, kept.priority) == (
        "ann",
        "t",
        "text-to-image",
        ("x",),
        3,
    )
    assert (kept.files, kept.needs, kept.sequence, kept.created_utc_ms) == (files, NEEDS, 1, UTC_MS)


def test_sequences_go_on_where_the_store_ended(broker: Given) -> None:
    broker.submitted(1)
    broker.start("6" * 32)
    assert broker.records[broker.submitted(2)].sequence == 2


@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize("state", list(JobState))
def test_the_same_submit_again_gives_the_same_job_in_any_state(broker: Given, key: str, state: JobState) -> None:
    first = broker.in_state(state, broker.joined("gpu-0"), idempotency_key=key)
    was = broker.records[first]
    reply = broker.asks(submit_of(1, idempotency_key=key, request_id="9" * 32))
    assert reply.existed and reply.job.job_id == first and reply.job.state is state
    assert broker.records == {first: was}


def test_the_same_key_with_another_id_gives_the_first_job(broker: Given) -> None:
    first = broker.submitted(1, idempotency_key="k")
    reply = broker.asks(submit_of(2, idempotency_key="k"))
    assert reply.existed and reply.job.job_id == first and job_id(2) not in broker.records


@pytest.mark.parametrize(
    "other",
    [
        {"workflow": b"[]"},
        {"form": b"{}"},
        {"template": "t"},
        {"priority": 1},
        {"labels": ("x",)},
        {"files": (InputFile(name="photo.png", sha256="b" * 64, size_bytes=1),)},
        {"files": (InputFile(name="other.png", sha256="a" * 64, size_bytes=1),)},
    ],
    ids="-".join,
)
def test_the_same_key_with_another_body_is_a_conflict(broker: Given, other: dict[str, Any]) -> None:
    files = (InputFile(name="photo.png", sha256="a" * 64, size_bytes=1),)
    first = submit_of(1, idempotency_key="k", files=files)
    broker.asks(first)
    reply = refused(broker, dataclasses.replace(first, job_id=job_id(2), **other))
    assert reply.code == "conflict" and first.job_id in reply.text and "use a new key" in reply.text


def test_what_was_read_from_a_workflow_does_not_make_it_another_body() -> None:
    said = submit_of()
    other = dataclasses.replace(said, title="t", needs=dataclasses.replace(NEEDS, steps=9), request_id="9" * 32)
    assert body_sha256(said) == body_sha256(other)


def test_parts_of_a_body_do_not_run_into_one_another() -> None:
    bodies = [
        submit_of(workflow=b"ab", form=b""), submit_of(workflow=b"a", form=b"b"), submit_of(workflow=b"", form=b"ab"),
        submit_of(labels=("a", "b")), submit_of(labels=("ab",)), submit_of(template="a", labels=("b",)),
    ]  # fmt: skip
    assert len({body_sha256(said) for said in bodies}) == len(bodies)


def test_an_id_in_use_is_refused_whoever_asks(broker: Given) -> None:
    broker.submitted(1, idempotency_key="k")
    for other in (submit_of(1), submit_of(1, idempotency_key="l"), submit_of(1, owner="bob", idempotency_key="k")):
        reply = refused(broker, other)
        assert reply.code == "conflict" and job_id(1) in reply.text and "choose another" in reply.text


def test_a_key_is_its_owners_alone(broker: Given) -> None:
    broker.submitted(1, idempotency_key="k")
    assert not broker.asks(submit_of(2, idempotency_key="k", owner="bob")).existed


def test_the_queue_has_a_most_for_all_and_for_one_owner() -> None:
    broker = Given(Rules(max_queued=3, max_queued_per_owner=2))
    for number in (1, 2):
        broker.submitted(number)
    reply = refused(broker, submit_of(3))
    assert reply.code == "quota" and "ann" in reply.text and "2 jobs" in reply.text and reply.retry_after_ms
    broker.submitted(4, owner="bob")
    reply = refused(broker, submit_of(5, owner="eve"))
    assert reply.code == "full" and "3 jobs" in reply.text and "try again later" in reply.text
    broker.cancels(job_id(1))
    broker.submitted(6)


def test_what_runs_does_not_count_against_the_queues_most() -> None:
    broker = Given(Rules(max_queued=1, max_queued_per_owner=1))
    gpu = broker.joined("gpu-0")
    broker.leased(gpu, 1)
    broker.submitted(2)
    assert broker.asks(submit_of(1)).existed  # a repeated submit is no new job, however full the queue is


# ---- cancel


def test_a_queued_job_is_cancelled_at_once(broker: Given) -> None:
    job = broker.submitted()
    assert broker.cancels(job).job.state is JobState.CANCELLED
    broker.joined("gpu-0")
    broker.tick()
    assert broker.told(job) == ["queued", "cancelled"]


def test_a_job_backing_off_is_cancelled_at_once_and_stays_so(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.fails(job, Reason.STALLED)
    broker.cancels(job)
    broker.passes(60_000, gpu)
    assert broker.state(job) is JobState.CANCELLED and len(gpu.dispatched) == 1


@pytest.mark.parametrize("state", [JobState.LEASED, JobState.RUNNING])
def test_the_worker_of_a_held_job_is_asked_to_stop_it(broker: Given, state: JobState) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(state, gpu)
    assert broker.cancels(job).job.state is JobState.CANCELLING
    assert gpu.last == wire.CancelAttempt(job_id=job, attempt=1)
    gpu.fails(job, Reason.CANCELLED)
    assert broker.state(job) is JobState.CANCELLED


def test_a_second_cancel_changes_nothing(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(JobState.CANCELLING, gpu)
    was = broker.told(job)
    assert broker.cancels(job).job.state is JobState.CANCELLING and broker.told(job) == was


def test_a_job_whose_worker_is_expected_back_is_cancelled_when_it_comes_or_with_its_lease(broker: Given) -> None:
    job = broker.running(broker.joined("gpu-0"))
    broker.start("6" * 32)
    assert broker.cancels(job).job.state is JobState.CANCELLING
    gpu = broker.worker("gpu-0")
    gpu.announces()
    assert gpu.last.resume[0].cancelling
    broker.passes(broker.rules.lease_ms)
    assert broker.state(job) is JobState.CANCELLED


@pytest.mark.parametrize("state", TERMINAL)
def test_a_job_that_is_over_is_not_cancelled(broker: Given, state: JobState) -> None:
    job = broker.in_state(state, broker.joined("gpu-0"))
    reply = refused(broker, client.Cancel(request_id=REQUEST, job_id=job))
    assert reply.code == "finished" and reply.text == f"job {job} is {state}: there is nothing left to cancel"


def test_what_is_asked_for_again_has_to_have_room_in_the_queue_as_well() -> None:
    broker = Given(Rules(max_queued=2, max_queued_per_owner=1))
    for number, owner in ((1, "ann"), (2, "ann"), (3, "bob")):
        broker.cancels(broker.submitted(number, owner=owner))
    broker.retries(job_id(1))
    assert broker.retries(job_id(2)).code == "quota" and broker.state(job_id(2)) is JobState.CANCELLED
    broker.submitted(4, owner="eve")
    assert broker.retries(job_id(3)).code == "full"


# ---- retry


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_job_without_a_picture_can_be_asked_for_again(broker: Given, state: JobState) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(state, gpu)
    attempts = broker.records[job].attempt
    assert broker.retries(job).job.state is JobState.QUEUED
    gpu.has_room()
    broker.tick()
    gpu.completes(job, attempt=attempts + 1)
    assert broker.state(job) is JobState.SUCCEEDED and broker.records[job].failure is None


def test_a_retry_has_all_its_attempts_before_it(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.submitted()
    for attempt in range(1, 7):
        broker.passes(2_000, gpu)
        gpu.fails(job, Reason.STALLED, attempt=attempt)
        gpu.has_room()
        if attempt == 3:
            assert broker.state(job) is JobState.FAILED
            broker.retries(job)
    assert broker.state(job) is JobState.FAILED and broker.records[job].attempt == 6


def test_a_cancel_reported_late_does_not_fail_the_job_that_was_asked_for_again(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(JobState.CANCELLING, gpu)
    broker.passes(broker.rules.lease_ms)
    broker.retries(job)
    gpu.announces(held(job, phase=Phase.ENDED))
    gpu.fails(job, Reason.CANCELLED)
    assert broker.state(job) is JobState.QUEUED


@pytest.mark.parametrize("state", [JobState.QUEUED, *HELD])
def test_a_job_that_is_not_over_is_not_asked_for_again(broker: Given, state: JobState) -> None:
    job = broker.in_state(state, broker.joined("gpu-0"))
    reply = refused(broker, client.Retry(request_id=REQUEST, job_id=job))
    assert reply.code == "conflict" and reply.text == f"job {job} is {state}: wait for its end, or cancel it first"


def test_a_job_that_succeeded_is_not_asked_for_again(broker: Given) -> None:
    job = broker.in_state(JobState.SUCCEEDED, broker.joined("gpu-0"))
    reply = refused(broker, client.Retry(request_id=REQUEST, job_id=job))
    assert reply.code == "finished" and "submit a new one" in reply.text


# ---- pin and reorder


def test_a_pinned_job_runs_there_and_nowhere_else(broker: Given) -> None:
    here, there = broker.joined("gpu-0"), broker.joined("gpu-1", credits=0)
    job = broker.submitted()
    broker.asks(pin(job, "gpu-1"))
    broker.tick()
    assert not here.dispatched
    there.has_room()
    broker.tick()
    assert there.dispatched == [(job, 1)]


def test_a_lifted_pin_lets_it_run_anywhere(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.submitted()
    broker.asks(pin(job, "elsewhere"))
    broker.asks(pin(job, ""))
    broker.tick()
    assert gpu.dispatched == [(job, 1)]


def test_a_job_moved_up_goes_first_and_one_moved_down_last(broker: Given) -> None:
    for number in (1, 2, 3):
        broker.submitted(number)
    assert broker.asks(reorder(job_id(3), 9)).job.priority == 9
    broker.asks(reorder(job_id(1), -9))
    gpu = broker.joined("gpu-0", credits=3)
    broker.tick()
    assert [job for job, _ in gpu.dispatched] == [job_id(3), job_id(2), job_id(1)]


@pytest.mark.parametrize("state", HELD)
def test_only_a_queued_job_can_be_moved(broker: Given, state: JobState) -> None:
    job = broker.in_state(state, broker.joined("gpu-0"))
    for message in (pin(job), reorder(job)):
        reply = refused(broker, message)
        assert reply.code == "conflict" and f"job {job} is {state}: only a queued job can be moved" in reply.text


@pytest.mark.parametrize("state", TERMINAL)
def test_a_job_that_is_over_waits_for_nothing(broker: Given, state: JobState) -> None:
    job = broker.in_state(state, broker.joined("gpu-0"))
    for message in (pin(job), reorder(job)):
        reply = refused(broker, message)
        assert reply.code == "finished" and reply.text == f"job {job} is {state}: it waits for nothing"


@pytest.mark.parametrize(
    "message",
    [
        client.Cancel(request_id=REQUEST, job_id=UNKNOWN),
        client.Retry(request_id=REQUEST, job_id=UNKNOWN),
        pin(UNKNOWN),
        reorder(UNKNOWN),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_job_that_is_not_known_is_named(broker: Given, message: Any) -> None:
    reply = refused(broker, message)
    assert reply.code == "not_found" and reply.text == f"no job has the id {UNKNOWN}: check it, or list the jobs"


# ---- pause and drain


def test_a_paused_fleet_starts_nothing_and_goes_on_with_what_runs(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    job = broker.running(gpu, 1)
    broker.asks(pause())
    waiting = broker.submitted(2)
    broker.tick()
    gpu.completes(job)
    assert (broker.state(job), broker.state(waiting)) == (JobState.SUCCEEDED, JobState.QUEUED)
    assert broker.fleet.stats(broker.now).paused
    broker.asks(resume())
    broker.tick()
    assert broker.state(waiting) is JobState.LEASED


def test_a_paused_worker_is_passed_over(broker: Given) -> None:
    first, second = broker.joined("gpu-0"), broker.joined("gpu-1")
    broker.asks(pause("gpu-0"))
    for number in (1, 2):
        broker.submitted(number)
    broker.tick()
    assert (len(first.dispatched), len(second.dispatched)) == (0, 1)
    broker.asks(resume("gpu-0"))
    broker.tick()
    assert len(first.dispatched) == 1


def test_a_pause_outlives_the_workers_process(broker: Given) -> None:
    broker.joined("gpu-0")
    broker.asks(pause("gpu-0"))
    again = broker.joined("gpu-0")
    broker.submitted()
    broker.tick()
    assert not again.dispatched


def test_draining_is_asked_of_the_worker_and_believed_at_once(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    assert broker.asks(drain("gpu-0")) == client.Done(request_id=REQUEST)
    broker.submitted()
    broker.tick()
    assert gpu.last == wire.Drain() and gpu.state is WorkerState.DRAINING and not gpu.dispatched


@pytest.mark.parametrize("message", [pause("gpu-9"), resume("gpu-9"), drain("gpu-9")])
def test_a_worker_that_is_not_known_is_named_beside_those_that_are(broker: Given, message: Any) -> None:
    assert "those that are: none" in refused(broker, message).text
    for name in ("gpu-1", "gpu-0"):
        broker.joined(name)
    reply = refused(broker, message)
    assert reply.code == "not_found"
    assert reply.text == "no worker called gpu-9 is here: choose one of those that are: gpu-0, gpu-1"


def test_a_lost_worker_is_not_drained(broker: Given) -> None:
    broker.joined("gpu-0")
    broker.passes(broker.rules.lease_ms)
    assert refused(broker, drain("gpu-0")).code == "not_found"


# ---- delete


def deletes(broker: Given, job: str) -> Any:
    return broker.asks(client.Delete(request_id=REQUEST, job_id=job))


@pytest.mark.parametrize("state", list(JobState))
def test_only_a_job_that_is_over_is_deleted(broker: Given, state: JobState) -> None:
    job = broker.in_state(state, broker.joined("gpu-0"))
    before = broker.fleet.jobs.counts[state]
    reply = deletes(broker, job)
    if not state.terminal:
        assert reply.code == "conflict" and state in reply.text and "cancel it" in reply.text
        assert broker.state(job) is state
        return
    assert isinstance(reply, client.Done)
    assert job not in broker.records and broker.fleet.jobs.counts[state] == before - 1
    gone = broker.published[-1]
    assert isinstance(gone, JobGone) and (gone.job_id, gone.owner) == (job, "ann")
    assert deletes(broker, job).code == "not_found"
    assert broker.retries(job).code == "not_found"


def test_a_worker_that_reports_the_end_of_a_deleted_job_is_told_to_let_go(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(JobState.SUCCEEDED, gpu)
    deletes(broker, job)
    gpu.completes(job)
    assert isinstance(gpu.last, wire.Abandon) and gpu.last.job_id == job


def test_what_was_deleted_is_not_run_again_by_a_repeated_submit(broker: Given) -> None:
    step = broker.happens(FromClient(CLIENT, submit_of(1, idempotency_key="k"), deleted=job_id(7)))
    (reply,) = step.replies
    assert reply.message.code == "deleted" and job_id(7) in reply.message.text and not step.writes


def test_pauses_outlive_the_broker(broker: Given) -> None:
    broker.joined("gpu-0")
    broker.asks(pause())
    broker.asks(pause("gpu-0"))
    broker.start("6" * 32)
    gpu = broker.joined("gpu-0")
    job = broker.submitted()
    broker.asks(resume())
    broker.tick()
    assert broker.fleet.workers()[0].paused and not gpu.dispatched
    broker.asks(resume("gpu-0"))
    broker.tick()
    assert gpu.dispatched == [(job, 1)]
    broker.start("7" * 32)
    assert not broker.fleet.roster.paused and not broker.fleet.roster.fleet_paused


def test_a_drain_outlives_the_broker_and_not_the_session(broker: Given) -> None:
    broker.joined("gpu-0")
    broker.asks(drain("gpu-0"))
    broker.start("6" * 32)
    same = broker.worker("gpu-0", 1)
    same.announces()
    assert same.last == wire.Drain() and same.state is WorkerState.DRAINING
    new = broker.joined("gpu-0")
    assert new.state is WorkerState.READY


def test_a_full_disk_takes_nothing_in_and_begins_nothing_but_ends_what_runs(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    job = broker.running(gpu)
    waiting = broker.submitted(2)
    broker.fleet.jobs.disk_full = True
    broker.tick()
    reply = refused(broker, submit_of(3))
    assert (reply.code, reply.retry_after_ms) == ("disk_full", 30_000)
    gpu.completes(job)
    broker.tick()
    assert broker.state(job) is JobState.SUCCEEDED and broker.state(waiting) is JobState.QUEUED
    assert broker.fleet.stats(broker.now).disk_full
    broker.fleet.jobs.disk_full = False
    broker.tick()
    assert broker.state(waiting) is JobState.LEASED
