"""A worker on which nothing goes well gets no work until a probe has shown that it can do some."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.breaker import CALM_MS
from broker.core.leases import FORGET_LOST_MS
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.records import BreakerState, JobState, Phase, ProgressKind, Reason
from tests.core.broker.given import REQUEST, Given, Session, held

BLAMED = [Reason.OUTPUT_LOST, Reason.COMFY_UNREACHABLE, Reason.COMFY_LOST, Reason.STALLED, Reason.NOT_ACCEPTED]
NOT_BLAMED = [Reason.NODE_ERROR, Reason.INVALID_WORKFLOW, Reason.OUT_OF_MEMORY, Reason.DRAINING, Reason.INTERRUPTED]


def breaker(session: Session) -> Any:
    return session.given.fleet.roster.by_name[session.name].breaker


def fail_one(broker: Given, gpu: Session, number: int, reason: Reason = Reason.COMFY_UNREACHABLE) -> None:
    """A job that fails there, and is cancelled so that it does not come back."""
    gpu.has_room(1)
    job = broker.leased(gpu, number)
    gpu.fails(job, reason)
    if broker.state(job) is JobState.QUEUED:
        broker.cancels(job)


def broken(broker: Given) -> Session:
    gpu = broker.joined("gpu-0")
    for number in (1, 2, 3):
        fail_one(broker, gpu, len(broker.records) + number)
    return gpu


def probe_of(gpu: Session) -> wire.Probe:
    return next(message for message in reversed(gpu.got) if isinstance(message, wire.Probe))


def probes(gpu: Session) -> int:
    return sum(isinstance(message, wire.Probe) for message in gpu.got)


def answers(gpu: Session, passed: bool = True, why: str = "") -> None:
    gpu.says(wire.Probed(serial=probe_of(gpu).serial, passed=passed, why=why))


def ask(kind: type[Any], name: str = "gpu-0") -> Any:
    return kind(request_id=REQUEST, worker=name)


@pytest.mark.parametrize("reason", BLAMED)
def test_three_different_jobs_in_a_row_open_it(broker: Given, reason: Reason) -> None:
    gpu = broker.joined("gpu-0")
    for number in (1, 2):
        fail_one(broker, gpu, number, reason)
        assert breaker(gpu).state is BreakerState.CLOSED
    fail_one(broker, gpu, 3, reason)
    assert breaker(gpu).state is BreakerState.OPEN
    assert breaker(gpu).why == "3 failed in a row, the last: as the test has it"
    gpu.has_room(1)
    broker.submitted(4)
    broker.tick()
    assert len(gpu.dispatched) == 3


@pytest.mark.parametrize("reason", NOT_BLAMED)
def test_what_the_workflow_or_a_person_did_does_not_open_it(broker: Given, reason: Reason) -> None:
    gpu = broker.joined("gpu-0")
    for number in range(1, 6):
        fail_one(broker, gpu, number, reason)
    assert breaker(gpu).state is BreakerState.CLOSED


def test_one_job_alone_does_not_open_it_however_often_it_fails(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.submitted()
    for attempt in (1, 2, 3):
        gpu.has_room(1)
        broker.passes(60_000, gpu)
        gpu.fails(job, Reason.COMFY_UNREACHABLE, attempt)
    assert broker.state(job) is JobState.FAILED and breaker(gpu).state is BreakerState.CLOSED


def test_a_success_in_between_forgets_what_failed(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    fail_one(broker, gpu, 1)
    fail_one(broker, gpu, 2)
    gpu.has_room(1)
    gpu.completes(broker.leased(gpu, 3))
    fail_one(broker, gpu, 4)
    fail_one(broker, gpu, 5)
    assert breaker(gpu).state is BreakerState.CLOSED


def test_one_word_that_the_card_is_broken_opens_it_at_once(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    fail_one(broker, gpu, 1, Reason.POISONED)
    assert breaker(gpu).state is BreakerState.OPEN and breaker(gpu).why.startswith("poisoned: ")


def test_what_has_not_begun_there_goes_to_others_and_what_runs_stays(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=0)
    for number in (1, 2):
        fail_one(broker, gpu, number)
    gpu.has_room(3)
    running, failing, staged = (broker.running(gpu, number) for number in (3, 4, 5))
    gpu.reports(running, 1, ProgressKind.STARTED)
    gpu.beats(held(running), held(staged, phase=Phase.STAGED))
    gpu.fails(failing, Reason.COMFY_UNREACHABLE)
    broker.cancels(failing)
    assert breaker(gpu).state is BreakerState.OPEN
    broker.tick()
    assert (broker.state(running), broker.state(staged)) == (JobState.RUNNING, JobState.QUEUED)
    assert broker.records[staged].burnt == 0 and isinstance(gpu.last, wire.Abandon) and gpu.last.job_id == staged
    other = broker.joined("gpu-1")
    broker.tick()
    assert other.dispatched == [(staged, 2)]


def test_what_a_new_session_has_not_named_may_run_and_is_not_taken_back(broker: Given) -> None:
    job = broker.running(broker.joined("gpu-0"), 9)
    broker.notes["breaker/gpu-0"] = "poisoned"
    broker.start("6" * 32)
    again = broker.joined("gpu-0", credits=0)
    assert breaker(again).state is BreakerState.OPEN
    broker.tick()
    assert broker.state(job) is JobState.RUNNING
    again.beats(held(job))
    broker.tick()
    assert broker.state(job) is JobState.RUNNING


def test_what_was_staged_in_the_session_before_is_not_taken_back_before_the_new_one_names_it(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu, 9)
    gpu.beats(held(job, phase=Phase.STAGED))
    breaker(gpu).state = BreakerState.OPEN
    again = broker.joined("gpu-0", credits=0)
    assert breaker(again).state is BreakerState.OPEN
    broker.tick()
    assert broker.state(job) is JobState.RUNNING
    again.beats(held(job, phase=Phase.STAGED))
    broker.tick()
    assert broker.state(job) is JobState.QUEUED


def test_a_probe_that_is_asked_for_leaves_what_has_not_begun(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    for number in (1, 2):
        broker.running(gpu, number)
    broker.asks(ask(client.ProbeWorker))
    broker.tick()
    assert len(list(broker.held_by(gpu))) == 2


def test_a_probe_that_succeeds_closes_it_and_work_goes_on(broker: Given) -> None:
    gpu = broken(broker)
    gpu.has_room(1)
    broker.submitted(4)
    broker.passes(broker.rules.probe_first_ms, gpu)
    assert breaker(gpu).state is BreakerState.PROBING and gpu.last == probe_of(gpu)
    answers(gpu)
    broker.tick()
    assert breaker(gpu).state is BreakerState.CLOSED and breaker(gpu).why == ""
    assert len(gpu.dispatched) == 4


def test_the_wait_doubles_with_each_probe_that_fails(broker: Given) -> None:
    gpu = broken(broker)
    waits = []
    for count in range(1, 9):
        began_ms = broker.now_ms
        while probes(gpu) < count:
            broker.passes(1_000, gpu)
        waits.append(broker.now_ms - began_ms)
        answers(gpu, passed=False, why="no picture")
        assert breaker(gpu).state is BreakerState.OPEN
        assert breaker(gpu).why == "the probe failed: no picture"
    assert waits == [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]


def test_a_probe_without_an_answer_has_failed(broker: Given) -> None:
    gpu = broken(broker)
    broker.passes(broker.rules.probe_first_ms + broker.rules.probe_ms, gpu)
    assert breaker(gpu).state is BreakerState.OPEN and breaker(gpu).why.endswith("no answer within 60 s")
    answers(gpu)  # too late
    assert breaker(gpu).state is BreakerState.OPEN


def test_one_that_opens_again_soon_after_is_probed_later_and_calm_forgets_that(broker: Given) -> None:
    gpu = broken(broker)
    broker.passes(5_000, gpu)
    for calm_ms, wait_ms in ((0, 10_000), (CALM_MS + 1, 5_000)):
        answers(gpu)
        broker.passes(calm_ms, gpu)
        for number in (10, 11, 12):
            fail_one(broker, gpu, number + wait_ms)
        before = probes(gpu)
        broker.passes(wait_ms - 1, gpu)
        assert probes(gpu) == before
        broker.passes(1, gpu)
        assert probes(gpu) == before + 1


def test_it_waits_with_the_probe_until_the_worker_holds_nothing(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    job = broker.running(gpu, 9)
    assert broker.asks(ask(client.ProbeWorker)) == client.Done(request_id=REQUEST)
    broker.passes(20_000, gpu)
    assert breaker(gpu).state is BreakerState.PROBING
    assert probes(gpu) == 0
    gpu.completes(job)
    broker.passes(broker.rules.heartbeat_ms, gpu)
    assert gpu.last == probe_of(gpu)


def test_a_new_session_does_not_close_it_and_is_probed(broker: Given) -> None:
    broken(broker)
    again = broker.joined("gpu-0")
    assert breaker(again).state is BreakerState.OPEN
    broker.passes(broker.rules.probe_first_ms, again)
    answers(again)
    assert breaker(again).state is BreakerState.CLOSED


def test_a_worker_that_falls_silent_again_and_again_is_left_in_peace_for_a_while(broker: Given) -> None:
    for number in (1, 2, 3):
        gpu = broker.joined("gpu-0")
        broker.running(gpu, number)
        broker.passes(broker.rules.lease_ms)
        for job in [r.job_id for r in broker.records.values() if r.state is JobState.QUEUED]:
            broker.cancels(job)
    gpu = broker.joined("gpu-0")
    assert breaker(gpu).state is BreakerState.OPEN
    assert breaker(gpu).why == "3 failed in a row, the last: gpu-0 has been silent for 10 s"


def test_a_restart_is_handed_on_and_a_probe_follows(broker: Given) -> None:
    gpu = broker.joined("gpu-0", restartable=True)
    assert broker.asks(ask(client.RestartWorker)) == client.Done(request_id=REQUEST)
    assert gpu.last == wire.Restart(why="an admin asked for it")
    assert breaker(gpu).state is BreakerState.PROBING
    broker.passes(broker.rules.lease_ms, gpu)
    assert gpu.last == probe_of(gpu)


def test_a_probe_from_before_a_restart_tells_nothing(broker: Given) -> None:
    gpu = broker.joined("gpu-0", restartable=True)
    broker.asks(ask(client.ProbeWorker))
    broker.tick()
    before = probe_of(gpu)
    broker.asks(ask(client.RestartWorker))
    gpu.says(wire.Probed(serial=before.serial, passed=True, why=""))
    assert breaker(gpu).state is BreakerState.PROBING
    broker.passes(broker.rules.lease_ms, gpu)
    assert probes(gpu) == 2
    answers(gpu)
    assert breaker(gpu).state is BreakerState.CLOSED


def test_a_restart_needs_a_command(broker: Given) -> None:
    broker.joined("gpu-0")
    reply = broker.asks(ask(client.RestartWorker))
    assert isinstance(reply, client.Error) and reply.code == "conflict" and "[worker] restart" in reply.text


@pytest.mark.parametrize("kind", [client.ProbeWorker, client.RestartWorker])
def test_neither_is_asked_of_a_worker_that_is_not_here(broker: Given, kind: type[Any]) -> None:
    assert broker.asks(ask(kind)).code == "not_found"
    broker.joined("gpu-0")
    broker.passes(broker.rules.lease_ms)
    assert broker.asks(ask(kind)).code == "not_found"


def test_a_new_process_of_the_broker_does_not_close_it(broker: Given) -> None:
    gpu = broken(broker)
    why = breaker(gpu).why
    broker.start("6" * 32)
    again = broker.worker("gpu-0", 1)
    again.announces()
    assert (breaker(again).state, breaker(again).why) == (BreakerState.OPEN, why)
    broker.passes(broker.rules.probe_first_ms, again)
    answers(again)
    broker.start("7" * 32)
    last = broker.worker("gpu-0", 1)
    last.announces()
    assert breaker(last).state is BreakerState.CLOSED


def test_a_worker_that_left_or_is_forgotten_begins_anew(broker: Given) -> None:
    gpu = broken(broker)
    gpu.says(wire.Leave(why="done"))
    assert not any(broker.notes.values())
    broken(broker)
    broker.start("6" * 32)
    broker.passes(FORGET_LOST_MS)
    assert not any(broker.notes.values())
