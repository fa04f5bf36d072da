"""What a worker says, and what the core makes of it: fences, sessions, names, room, heartbeats."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from broker.core.events import FromWorker
from broker.core.hearing import HANDLERS, NAME_TAKEN
from broker.core.roster import WORKERS_MOST
from broker.core.step import Send, Step
from broker.protocol import worker as wire
from broker.protocol.codec import TYPES, WORKER_SENDS
from broker.protocol.events import JobPreview, JobProgress, WorkerGone
from broker.protocol.records import JobState, Phase, ProgressKind, Reason, WorkerState
from tests.core.broker.given import DIGEST, NEEDS, STREAM, Given, Session, held, job_id, session_id

#: Everything a worker can say about an attempt.
WORDS = ["accepts", "reports", "completes", "fails"]


def say(session: Session, word: str, job: str, attempt: int = 1) -> Step:
    match word:
        case "accepts":
            return session.accepts(job, attempt)
        case "reports":
            return session.reports(job, 9, attempt=attempt)
        case "completes":
            return session.completes(job, attempt)
        case _:
            return session.fails(job, Reason.NODE_ERROR, attempt)


def abandoned(session: Session, job: str, attempt: int = 1) -> bool:
    said = session.last
    return isinstance(said, wire.Abandon) and (said.job_id, said.attempt) == (job, attempt)


def test_every_message_of_a_workers_role_is_understood() -> None:
    assert HANDLERS.keys() | {wire.Announce} == {TYPES[tag] for tag in WORKER_SENDS}


# ---- fences


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "fence", ["another job", "an old attempt", "a future attempt", "another session", "a lost job"]
)
def test_a_stale_fence_changes_nothing_and_is_told_to_let_go(broker: Given, word: str, fence: str) -> None:
    gpu, other = broker.joined("gpu-0"), broker.joined("gpu-1", credits=0)
    job, attempt, speaker = broker.running(gpu), 1, gpu
    match fence:
        case "another job":
            job = job_id(77)
        case "an old attempt":
            gpu.fails(job, Reason.STALLED)
            gpu.has_room()
            broker.passes(250)
            gpu.accepts(job, attempt=2)
        case "a future attempt":
            attempt = 2
        case "another session":
            speaker = other
        case "a lost job":
            broker.passes(broker.rules.lease_ms - 1, other)
            broker.passes(1, other)
            speaker.announces()
    was = dict(broker.records)
    assert not say(speaker, word, job, attempt).writes
    assert abandoned(speaker, job, attempt)
    assert broker.records == was


@pytest.mark.parametrize("word", WORDS)
def test_a_session_that_is_not_known_is_asked_to_announce_first(broker: Given, word: str) -> None:
    job = broker.running(broker.joined("gpu-0"))
    stranger = broker.worker("gpu-9")
    assert not say(stranger, word, job).writes
    assert stranger.got == [wire.Refused(why="announce first", retry=True)]


@pytest.mark.parametrize(("word", "state"), [("completes", JobState.SUCCEEDED), ("fails", JobState.FAILED)])
def test_an_end_is_recorded_and_recorded_again_when_repeated(broker: Given, word: str, state: JobState) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    say(gpu, word, job)
    assert broker.state(job) is state and gpu.last == wire.Recorded(job_id=job, attempt=1)
    was = broker.records[job]
    assert not say(gpu, word, job).writes
    assert gpu.last == wire.Recorded(job_id=job, attempt=1) and broker.records[job] == was


def test_an_end_is_recorded_again_for_the_workers_next_process_too(broker: Given) -> None:
    old = broker.joined("gpu-0")
    job = broker.running(old)
    old.completes(job)
    new = broker.joined("gpu-0")
    new.completes(job)
    assert new.last == wire.Recorded(job_id=job, attempt=1)


@pytest.mark.parametrize("why", ["the broker gave up", "the other end was recorded", "somebody else ended it"])
def test_an_end_that_was_never_recorded_is_not_said_to_be(broker: Given, why: str) -> None:
    gpu, other = broker.joined("gpu-0"), broker.joined("gpu-1", credits=0)
    job = broker.in_state(JobState.CANCELLING, gpu)
    if why == "the broker gave up":
        broker.passes(broker.rules.lease_ms, other)
        gpu.announces()
    else:
        gpu.fails(job, Reason.CANCELLED)
    speaker = other if why == "somebody else ended it" else gpu
    was = broker.records[job]
    assert not speaker.completes(job).writes
    assert abandoned(speaker, job) and broker.records[job] == was


def test_an_end_needs_no_acceptance_before(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    good, bad = broker.leased(gpu, 1), broker.leased(gpu, 2)
    gpu.completes(good)
    gpu.fails(bad, Reason.INVALID_WORKFLOW)
    assert (broker.state(good), broker.state(bad)) == (JobState.SUCCEEDED, JobState.FAILED)


def test_a_result_that_comes_too_late_for_its_cancel_counts(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(JobState.CANCELLING, gpu)
    gpu.completes(job)
    assert broker.state(job) is JobState.SUCCEEDED


@pytest.mark.parametrize("reason", list(Reason))
def test_a_cancelled_attempt_that_ends_otherwise_is_cancelled(broker: Given, reason: Reason) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(JobState.CANCELLING, gpu)
    gpu.fails(job, reason, text="x" * 4_000)
    assert broker.state(job) is JobState.CANCELLED and broker.records[job].failure is None


@pytest.mark.parametrize("reason", list(Reason))
def test_the_longest_text_fits_into_the_story(broker: Given, reason: Reason) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.fails(job, reason, text="é" * 4_000)
    assert len(broker.story[job][-1].text) == 4_000


# ---- sessions and names


def test_a_welcome_says_how_often_to_beat_and_whether_the_capabilities_are_known(broker: Given) -> None:
    first = broker.worker("gpu-0")
    first.announces()
    assert first.last == wire.Welcome(
        broker=STREAM, heartbeat_ms=2_000, lease_ms=10_000, need_capabilities=True, resume=()
    )
    first.offers(*NEEDS.nodes)
    second = broker.worker("gpu-1")
    second.announces()
    assert not second.last.need_capabilities


def test_the_newest_session_of_a_name_wins_and_the_old_one_is_told_to_go(broker: Given) -> None:
    old = broker.joined("gpu-0")
    new = broker.worker("gpu-0")
    new.announces()
    assert old.last == wire.Refused(why=NAME_TAKEN, retry=False)
    old.beats()
    assert old.last == wire.Refused(why=NAME_TAKEN, retry=False)
    old.announces()
    assert old.last == wire.Refused(why=NAME_TAKEN, retry=False)
    assert broker.fleet.roster.by_name["gpu-0"].session == new.session


def test_a_process_that_was_replaced_while_it_was_lost_does_not_take_the_name_back(broker: Given) -> None:
    old = broker.joined("gpu-0")
    job = broker.running(old)
    broker.passes(broker.rules.lease_ms)
    new = broker.joined("gpu-0")
    old.announces(held(job))
    assert old.last == wire.Refused(why=NAME_TAKEN, retry=False)
    assert broker.fleet.roster.by_name["gpu-0"].session == new.session and new.state is WorkerState.READY


def test_a_session_announced_again_keeps_what_it_holds(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    told, untold = broker.running(gpu, 1), broker.leased(gpu, 2)
    gpu.announces(held(told))
    assert [resume.job_id for resume in gpu.last.resume] == [untold]
    assert {job.record.job_id for job in broker.held_by(gpu)} == {told, untold}
    assert gpu.state is WorkerState.JOINED  # its room must be offered anew


def test_one_session_is_one_worker(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    double = Session(broker, "gpu-1", gpu.session)
    double.announces()
    assert "this session is worker gpu-0" in gpu.last.why and not gpu.last.retry
    broker.passes(broker.rules.lease_ms)
    assert broker.state(job) is JobState.QUEUED  # and not for ever in the hands of a ghost


def test_a_session_must_be_the_sockets_own(broker: Given) -> None:
    thief = broker.worker("gpu-0")
    thief.says(dataclasses.replace(thief.introduction(), session=session_id(99)))
    assert "the session announced is not the one this socket has" in thief.last.why and not thief.last.retry
    assert not broker.fleet.roster.by_name


def test_a_key_opens_its_own_name_alone(broker: Given) -> None:
    thief = broker.worker("gpu-0", key_name="gpu-7")
    thief.announces()
    why = "this key belongs to worker gpu-7, not gpu-0: start it with --name gpu-7"
    assert thief.last == wire.Refused(why=why, retry=False) and not broker.fleet.roster.by_name


@pytest.mark.parametrize("word", WORDS)
def test_a_session_overheard_is_of_no_use_with_another_key(broker: Given, word: str) -> None:
    gpu = broker.joined("gpu-0", key_name="gpu-0")
    job = broker.running(gpu)
    thief = Session(broker, "gpu-0", gpu.session, key_name="gpu-7")
    silent_by_ms = broker.fleet.roster.by_session[gpu.session].silent_by_ms
    broker.now_ms += 1
    assert not say(thief, word, job).writes
    assert isinstance(gpu.last, wire.Refused) and "this key belongs to worker gpu-7" in gpu.last.why
    assert broker.fleet.roster.by_session[gpu.session].silent_by_ms == silent_by_ms


def test_a_flood_of_names_ends_at_what_a_reply_can_carry(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    known = broker.fleet.roster.by_session[gpu.session]
    broker.fleet.roster.by_name |= {f"x{number}": known for number in range(WORKERS_MOST - 1)}
    one_more = broker.worker("one-more")
    step = broker.fleet.handle(FromWorker(one_more.session, one_more.introduction()), broker.now)
    (refused,) = [send.message for send in step.sends]
    assert not refused.retry and "5000 workers are known" in refused.why and "stop some" in refused.why
    for number in range(WORKERS_MOST - 1):
        del broker.fleet.roster.by_name[f"x{number}"]


def test_a_goodbye_hands_everything_back_without_blame(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    running, leased = broker.running(gpu, 1), broker.leased(gpu, 2)
    step = gpu.says(wire.Leave(why="w" * 500))
    assert [(broker.state(j), broker.records[j].burnt) for j in (running, leased)] == [(JobState.QUEUED, 0)] * 2
    assert isinstance(step.published[-1], WorkerGone) and not broker.fleet.roster.by_name
    assert broker.story[running][-1].text.startswith("draining: gpu-0 left: www")


def test_a_worker_that_left_may_come_back(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    gpu.says(wire.Leave(why=""))
    gpu.announces()
    assert isinstance(gpu.last, wire.Welcome)


# ---- room


def test_a_heartbeat_is_never_taken_as_room(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=0)
    broker.submitted()
    broker.passes(20_000, gpu)
    assert not gpu.dispatched


def test_room_said_twice_is_not_twice_the_room(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=1)
    for number in (1, 2):
        broker.submitted(number)
    broker.tick()
    gpu.says(wire.Ready(serial=gpu.serial, credits=1, seen=0))  # doubled on its way
    gpu.has_room(1, seen=0)  # and said again before the dispatch arrived
    broker.tick()
    assert len(gpu.dispatched) == 1
    gpu.has_room(1)
    broker.tick()
    assert len(gpu.dispatched) == 2


def test_an_older_word_about_room_does_not_undo_a_newer_one(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=0)
    gpu.says(wire.Ready(serial=5, credits=0, seen=0))
    gpu.says(wire.Ready(serial=4, credits=2, seen=0))
    broker.submitted()
    broker.tick()
    assert not gpu.dispatched


def test_a_lost_word_about_room_is_made_good_by_the_next(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=0)
    broker.submitted()
    gpu.serial += 3
    gpu.has_room(1)
    broker.tick()
    assert len(gpu.dispatched) == 1


def test_ready_and_busy_follow_what_is_held(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=0)
    states = [gpu.state]
    gpu.has_room()
    states.append(gpu.state)
    job = broker.running(gpu)
    states.append(gpu.state)
    gpu.completes(job)
    assert [*states, gpu.state] == [WorkerState.JOINED, WorkerState.READY, WorkerState.BUSY, WorkerState.READY]


def test_a_worker_out_of_reach_gets_nothing_until_it_speaks_of_room_again(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    broker.unreachable(gpu)
    broker.submitted()
    broker.tick()
    assert not gpu.dispatched
    gpu.has_room()
    broker.tick()
    assert len(gpu.dispatched) == 1
    assert broker.unreachable(broker.worker("gone")) == Step()


# ---- draining


def test_a_draining_worker_finishes_what_it_holds_and_gets_no_more(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    job = broker.running(gpu)
    gpu.says(wire.Draining())
    gpu.has_room(2)
    waiting = broker.submitted(2)
    broker.tick()
    gpu.completes(job)
    assert (broker.state(job), broker.state(waiting)) == (JobState.SUCCEEDED, JobState.QUEUED)
    assert gpu.state is WorkerState.DRAINING


def test_a_drain_that_got_lost_is_said_again_to_a_worker_that_offers_room(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    broker.fleet.roster.by_name["gpu-0"].move(WorkerState.DRAINING)
    gpu.has_room(0)
    gpu.beats()
    assert not isinstance(gpu.last, wire.Drain)
    gpu.has_room(1)
    for _ in range(2):
        gpu.beats()
        assert gpu.last == wire.Drain()


def test_a_session_announced_again_is_still_draining_its_next_process_is_not(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    gpu.says(wire.Draining())
    gpu.announces()
    again = gpu.state
    broker.worker("gpu-0").announces()
    assert (again, gpu.state) == (WorkerState.DRAINING, WorkerState.JOINED)


def test_a_job_handed_back_by_a_draining_worker_burns_nothing_and_goes_on_at_once(broker: Given) -> None:
    gpu, other = broker.joined("gpu-0"), broker.joined("gpu-1", credits=0)
    job = broker.leased(gpu)
    gpu.says(wire.Draining())
    gpu.fails(job, Reason.DRAINING)
    other.has_room()
    broker.tick()
    assert other.dispatched == [(job, 2)] and broker.records[job].burnt == 0


# ---- heartbeats


def test_two_beats_in_a_row_without_an_attempt_give_it_up(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.beats()
    gpu.beats(held(job))
    gpu.beats()
    assert broker.state(job) is JobState.RUNNING
    gpu.beats()
    assert broker.state(job) is JobState.QUEUED
    assert "gpu-0 does not hold it any more" in broker.story[job][-1].text


def test_beats_do_not_deny_a_dispatch_that_is_still_on_its_way(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.leased(gpu)
    for _ in range(5):
        gpu.beats()
    assert broker.state(job) is JobState.LEASED


def test_what_the_broker_does_not_know_of_is_abandoned_at_the_first_beat(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.beats(held(job), held(job, attempt=7), held(job_id(8)))
    abandons = [(m.job_id, m.attempt) for m in gpu.got if isinstance(m, wire.Abandon)]
    assert abandons == [(job, 7), (job_id(8), 1)] and broker.state(job) is JobState.RUNNING


def test_a_cancel_is_repeated_at_each_beat_until_the_worker_reports_an_end(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.in_state(JobState.CANCELLING, gpu)
    for _ in range(3):
        gpu.got.clear()
        gpu.beats(held(job))
        assert wire.CancelAttempt(job_id=job, attempt=1) in gpu.got


def test_capabilities_are_asked_for_until_they_came(broker: Given) -> None:
    gpu = broker.worker("gpu-0")
    gpu.announces()
    gpu.beats()
    assert gpu.last == wire.Beat(need_capabilities=True, ready=0)
    gpu.offers(*NEEDS.nodes)
    gpu.beats()
    assert gpu.last == wire.Beat(need_capabilities=False, ready=0)


def test_a_worker_speaks_for_its_own_capabilities_alone(broker: Given) -> None:
    gpu, liar = broker.joined("gpu-0"), broker.worker("gpu-1", capabilities="b" * 64)
    liar.announces()
    liar.says(wire.Capabilities(digest=DIGEST, nodes=(), models=()))
    broker.submitted()
    broker.tick()
    assert len(gpu.dispatched) == 1


# ---- progress


def test_progress_is_told_and_never_written(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    step = gpu.reports(job, 1)
    (told,) = step.published
    assert isinstance(told, JobProgress) and told.serial == broker.fleet.serial and not step.writes
    assert broker.job(job).progress == told.progress
    assert gpu.reports(job, 1) == Step() == gpu.reports(job, 0)


def test_a_preview_has_no_place_in_the_stream_and_is_not_kept(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job, serial = broker.running(gpu), broker.fleet.serial
    (told,) = gpu.reports(job, 1, ProgressKind.PREVIEW).published
    assert told == JobPreview(job_id=job, attempt=1, media_type="image/jpeg", image=b"jpeg")
    assert broker.fleet.serial == serial and broker.job(job).progress is None


def test_the_moment_comfyui_begins_is_written_with_the_next_change(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    broker.passes(1_000, gpu)
    assert not gpu.reports(job, 1, ProgressKind.STARTED).writes
    assert broker.job(job).phase is Phase.RUNNING
    gpu.completes(job)
    assert broker.records[job].started_utc_ms == broker.now.utc_ms


def test_a_second_acceptance_with_another_prompt_id_is_kept(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    assert not gpu.accepts(job).writes
    gpu.accepts(job, prompt_id="q")
    assert broker.records[job].prompt_id == "q"
    assert broker.told(job) == ["queued", "leased", "running"]


@pytest.mark.parametrize("message", [wire.Draining(), wire.Leave(why=""), wire.Ready(serial=1, credits=1, seen=0)])
def test_whatever_comes_before_the_announce_changes_nothing(broker: Given, message: Any) -> None:
    gpu = broker.worker("gpu-0")
    step = gpu.says(message)
    assert step.sends == [Send(gpu.session, wire.Refused(why="announce first", retry=True))]
    assert not step.writes and not step.published and not broker.fleet.roster.by_name
