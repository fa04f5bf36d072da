"""Who holds what: attempts begin, are confirmed, end, and wait for a name that is expected back."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.roster import HELD_MOST
from broker.core.rules import Rules
from broker.core.step import UpdateJob
from broker.protocol import worker as wire
from broker.protocol.records import JobState, Phase, ProgressKind, Reason
from tests.core.broker.given import STREAM, Given, held, job_id


def test_an_attempt_is_numbered_and_written_before_it_is_sent(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.submitted()
    step = broker.tick()
    assert [write.record.attempt for write in step.writes if isinstance(write, UpdateJob)] == [1]
    (sent,) = [send for send in step.sends if isinstance(send.message, wire.Dispatch)]
    assert sent.session == gpu.session and sent.workflow_of == job
    assert (sent.message.attempt, sent.message.serial) == (1, 1)
    assert broker.records[job].worker == broker.records[job].last_worker == "gpu-0"


def test_a_dispatch_that_is_not_confirmed_in_time_is_taken_back(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.leased(gpu)
    broker.passes(broker.rules.accept_ms - 1)
    assert broker.state(job) is JobState.LEASED
    broker.passes(1)
    assert broker.state(job) is JobState.QUEUED and broker.records[job].burnt == 1
    assert gpu.last == wire.Abandon(job_id=job, attempt=1, why="not confirmed in time")
    assert "gpu-0 did not confirm it in time" in broker.story[job][-1].text


def test_a_worker_that_is_fetching_the_inputs_has_confirmed(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.leased(gpu)
    gpu.beats(held(job, phase=Phase.STAGING))
    assert broker.state(job) is JobState.LEASED
    broker.passes(3 * broker.rules.accept_ms, gpu)
    assert broker.records[job].attempt == 1


def test_a_silent_worker_loses_everything_at_the_end_of_its_lease(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    jobs = [broker.running(gpu, 1), broker.running(gpu, 2)]
    broker.passes(broker.rules.lease_ms - 1)
    assert [broker.state(job) for job in jobs] == [JobState.RUNNING] * 2
    broker.passes(1)
    assert [broker.state(job) for job in jobs] == [JobState.QUEUED] * 2
    assert [(broker.records[job].burnt, broker.records[job].deaths) for job in jobs] == [(1, 1)] * 2
    assert gpu.state == "lost" and broker.told(jobs[0]) == ["queued", "leased", "running", "queued"]
    assert "gpu-0 has been silent for 10 s" in broker.story[jobs[0]][-1].text


def test_any_message_renews_the_lease(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    for serial in range(5):
        broker.passes(broker.rules.lease_ms - 1)
        gpu.reports(job, serial)
    assert broker.state(job) is JobState.RUNNING


def test_the_lost_workers_job_waits_out_its_backoff_and_prefers_another(broker: Given) -> None:
    gone = broker.joined("gpu-0")
    job = broker.running(gone)
    broker.passes(broker.rules.lease_ms)
    again, other = broker.joined("gpu-0", number=90), broker.joined("gpu-1", number=91)
    broker.tick()
    assert not again.dispatched and not other.dispatched  # jitter 0.5 of 500 ms
    broker.passes(250)
    assert other.dispatched == [(job, 2)] and not again.dispatched


def test_a_job_that_fails_everywhere_gives_up_with_its_last_reason(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.submitted()
    for attempt in (1, 2, 3):
        broker.passes(2_000, gpu)
        gpu.fails(job, Reason.STALLED, attempt=attempt)
        gpu.has_room()
    record = broker.records[job]
    assert record.state is JobState.FAILED and record.failure is not None
    assert (record.failure.reason, record.attempt, record.burnt) == (Reason.STALLED, 3, 2)


def test_a_job_that_takes_three_workers_down_is_kept_for_a_person(broker: Given) -> None:
    job = broker.submitted()
    for number in range(3):
        gpu = broker.joined(f"gpu-{number}")
        broker.passes(500, gpu)
        gpu.accepts(job, attempt=number + 1)
        broker.passes(broker.rules.lease_ms)
    failure = broker.records[job].failure
    assert broker.state(job) is JobState.FAILED and failure is not None and failure.reason is Reason.POISON_JOB


def test_a_requeue_shows_no_progress_of_the_attempt_before(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.reports(job, 1)
    gpu.fails(job, Reason.STALLED)
    shown = broker.fleet.job_view(broker.records[job])
    assert (shown.state, shown.progress, shown.phase) == (JobState.QUEUED, None, None)


# ---- a worker that comes back


def test_a_restarted_worker_is_offered_what_was_leased_to_its_name(broker: Given) -> None:
    old = broker.joined("gpu-0")
    job = broker.running(old, 1)
    new = broker.worker("gpu-0")
    new.announces()
    assert [(r.job_id, r.attempt, r.prompt_id, r.cancelling) for r in new.last.resume] == [(job, 1, "p", False)]
    new.accepts(job)
    broker.passes(3 * broker.rules.lease_ms, new)
    new.completes(job)
    assert broker.state(job) is JobState.SUCCEEDED and broker.records[job].attempt == 1


def test_a_resume_that_is_not_taken_up_ends_with_the_lease(broker: Given) -> None:
    job = broker.running(broker.joined("gpu-0"))
    new = broker.worker("gpu-0")
    new.announces()
    broker.passes(broker.rules.lease_ms - 1, beat_ms=1 << 30)
    new.beats()
    assert broker.state(job) is JobState.RUNNING
    broker.passes(1)
    assert broker.state(job) is JobState.QUEUED
    assert new.last == wire.Abandon(job_id=job, attempt=1, why="not confirmed in time")


def test_progress_counts_anew_in_a_new_process(broker: Given) -> None:
    old = broker.joined("gpu-0")
    job = broker.running(old)
    old.reports(job, 50_000)
    new = broker.worker("gpu-0")
    new.announces()
    new.accepts(job)
    assert len(new.reports(job, 0, ProgressKind.STARTED).published) > 0
    assert broker.job(job).phase is Phase.RUNNING


@pytest.mark.parametrize("how", ["announced as held", "offered and accepted"])
def test_a_restarted_broker_leaves_a_running_attempt_where_it_is(broker: Given, how: str) -> None:
    before = broker.joined("gpu-0")
    job = broker.running(before)
    broker.start("6" * 32)
    assert before.beats(held(job)).sends[0].message == wire.Refused(why="announce first", retry=True)
    before.announces(*([held(job)] if how == "announced as held" else []))
    if how != "announced as held":
        assert before.last.resume[0].job_id == job
        before.accepts(job)
    broker.passes(3 * broker.rules.lease_ms, before)
    assert (broker.state(job), broker.records[job].attempt) == (JobState.RUNNING, 1)


def test_a_restarted_broker_gives_up_after_one_lease_on_a_worker_that_stays_away(broker: Given) -> None:
    job = broker.running(broker.joined("gpu-0"))
    broker.start("6" * 32)
    broker.passes(broker.rules.lease_ms - 1)
    assert broker.state(job) is JobState.RUNNING
    broker.passes(1)
    assert broker.state(job) is JobState.QUEUED
    assert not broker.fleet.leases.orphans


def test_a_restarted_broker_ends_a_cancel_whose_worker_stays_away(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(JobState.CANCELLING, gpu)
    broker.start("6" * 32)
    broker.passes(broker.rules.lease_ms)
    assert broker.state(job) is JobState.CANCELLED


def test_a_worker_thought_lost_that_comes_back_with_its_attempt_goes_on_at_no_cost(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    for _ in range(5):  # more often than a job may lose its worker
        broker.passes(broker.rules.lease_ms)
        assert broker.state(job) is JobState.QUEUED and broker.records[job].deaths == 1
        gpu.announces(held(job))
        record = broker.records[job]
        assert (record.state, record.attempt, record.burnt, record.deaths) == (JobState.RUNNING, 1, 0, 0)
        back = next(line for line in reversed(broker.story[job]) if line.what == "leased")
        assert back.burnt == 0, "the same attempt goes on"
    gpu.completes(job)
    assert broker.state(job) is JobState.SUCCEEDED and broker.records[job].outputs


def test_one_end_reported_again_after_a_reconnect_is_counted_once(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.fails(job, Reason.OUT_OF_MEMORY)
    gpu.announces(held(job, phase=Phase.ENDED))  # Recorded was lost with the connection
    gpu.fails(job, Reason.OUT_OF_MEMORY)
    assert (broker.state(job), broker.records[job].burnt) == (JobState.QUEUED, 1)


@pytest.mark.parametrize(
    "why", ["taken since", "pinned elsewhere", "never its own", "a newer attempt", "asked for again"]
)
def test_what_counts_elsewhere_is_not_given_back(broker: Given, why: str) -> None:
    gpu, other = broker.joined("gpu-0"), broker.worker("gpu-1")
    job, claimed = broker.running(gpu), held(job_id(1))
    if why == "never its own":
        gpu.beats(held(job))
    elif why == "asked for again":
        broker.cancels(job)
        gpu.fails(job, Reason.CANCELLED)
        broker.retries(job)
    else:
        broker.passes(broker.rules.lease_ms)
    if why == "pinned elsewhere":
        broker.fleet.jobs.amend(broker.tick(), broker.job(job), pin="gpu-1")
    if why == "taken since":
        broker.joined("gpu-2")
        broker.passes(250)
        assert broker.records[job].attempt == 2
    if why == "a newer attempt":
        claimed = held(job, attempt=2)
    back = other if why == "never its own" else gpu
    was = broker.fleet.jobs.live[job].record
    back.announces(claimed)
    assert wire.Abandon(job_id=job, attempt=claimed.attempt, why="it is not leased to you") in back.got
    assert broker.fleet.jobs.live[job].record == was


def test_what_one_worker_is_expected_back_with_is_not_another_ones(broker: Given) -> None:
    job = broker.running(broker.joined("gpu-0"))
    broker.start("6" * 32)
    other = broker.worker("gpu-1")
    other.announces(held(job))
    assert not other.got[0].resume and isinstance(other.last, wire.Abandon)
    assert broker.fleet.leases.orphans == {"gpu-0": {job}}


def test_a_held_attempt_named_twice_is_still_one(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.announces(held(job), held(job))
    assert isinstance(gpu.last, wire.Welcome) and broker.job(job).session == gpu.session


def test_no_name_is_offered_more_than_a_welcome_can_say(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=HELD_MOST)
    jobs = [broker.submitted(number) for number in range(1, HELD_MOST + 2)]
    broker.tick()
    assert len(gpu.dispatched) == HELD_MOST
    for job in jobs[:HELD_MOST]:
        gpu.accepts(job)
    broker.passes(broker.rules.lease_ms)
    gpu.announces(*(held(job) for job in jobs[:HELD_MOST]))
    assert len(list(broker.held_by(gpu))) == HELD_MOST
    for number in range(200, 210):  # a store written under other rules
        one = dataclasses.replace(broker.records[jobs[0]], job_id=job_id(number), sequence=number)
        broker.records[one.job_id] = one
    broker.start("6" * 32)
    gpu.announces()
    assert len(gpu.last.resume) == HELD_MOST


def test_names_that_never_come_back_are_not_remembered(broker: Given) -> None:
    for number in range(20):
        gpu = broker.joined(f"pod-{number}")
        broker.in_state(JobState.CANCELLING, gpu, number + 1)
        broker.start(f"{number:032x}")
        broker.passes(broker.rules.lease_ms + 1)
    assert not broker.fleet.leases.orphans


def test_a_worker_that_hands_the_same_job_back_for_ever_does_not_keep_it_alive_for_ever() -> None:
    broker = Given(Rules(max_attempts=1))
    gpu = broker.joined("gpu-0")
    job = broker.leased(gpu)
    broker.job(job).record = dataclasses.replace(broker.job(job).record, attempt=10_000)
    gpu.fails(job, Reason.DRAINING, attempt=10_000)
    assert broker.state(job) is JobState.FAILED
    assert "10000 attempts" in broker.retries(job).text


def test_limits_travel_with_dispatch_and_resume() -> None:
    broker = Given(Rules(start_to_close_ms=60_000, stall_ms=5_000))
    gpu = broker.joined("gpu-0")
    broker.running(gpu)
    again = broker.worker("gpu-0")
    again.announces()
    dispatch = next(m for m in gpu.got if isinstance(m, wire.Dispatch))
    assert dispatch.limits == again.last.resume[0].limits
    assert (dispatch.limits.start_to_close_ms, dispatch.limits.stall_ms) == (60_000, 5_000)
    assert again.last.broker == STREAM and again.last.lease_ms == broker.rules.lease_ms


def test_everybody_who_holds_something_is_counted_once(broker: Given) -> None:
    broker.running(broker.joined("gpu-0"), 1)
    broker.start("6" * 32)
    broker.running(broker.joined("gpu-1"), 2)
    assert sorted(job.record.job_id for job in broker.fleet.leases.held()) == [job_id(1), job_id(2)]
