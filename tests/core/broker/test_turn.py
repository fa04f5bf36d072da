"""One turn over a store: results before submits, one commit, and nothing that leaves before it."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.events import FromClient, Unreachable
from broker.core.rules import Now, Rules
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.errors import StoreError
from broker.protocol.events import JobChanged, JobGone, StatsChanged, WorkerChanged
from broker.protocol.records import InputFile, JobState
from broker.store.api import Wanted
from broker.turn import FILES_MS, UNSAVED_MS, Turn
from tests.core.broker.given import (
    CLIENT,
    REQUEST,
    UTC_MS,
    Given,
    held,
    job_id,
    session_id,
    submit_of,
)
from tests.core.broker.house import House, complete, told


def test_everything_of_a_turn_is_one_commit_and_a_job_is_sent_in_the_turn_it_came(house: House) -> None:
    house.opens()
    house.store.calls.clear()
    out = house.takes(submit_of(1, workflow=b'{"1": {}}'), submit_of(2))
    assert house.store.calls == ["job", "story", "job", "story", "update", "story", "commit", "workflow"]
    (sent,) = out.to_workers
    assert (sent.message.job_id, sent.message.workflow) == (job_id(1), b'{"1": {}}')
    assert [reply.message.job.job_id for reply in out.to_clients] == [job_id(1), job_id(2)]


def test_a_search_is_handed_on_and_answered_when_it_was_found(house: House) -> None:
    handed: list[FromClient] = []
    turn = Turn(house.turn.fleet, house.store, lambda _: True, search=handed.append)
    house.takes(submit_of(1))
    plain = client.List(
        request_id=REQUEST, owner="", states=(), template="", label="", group="", since_utc_ms=None,
        until_utc_ms=None, text="", after="", limit=9,
    )  # fmt: skip
    asked = FromClient(CLIENT, dataclasses.replace(plain, text="light"))
    out = turn.take([], [asked, FromClient(CLIENT, plain)], Now(0, UTC_MS))
    assert handed == [asked] and [len(reply.message.jobs) for reply in out.to_clients] == [1]
    (reply,) = turn.found(asked, house.store.page(Wanted(), after="", limit=9), Now(0, UTC_MS)).to_clients
    assert reply == out.to_clients[0]
    (refused,) = turn.found(asked, None, Now(0, UTC_MS)).to_clients
    assert refused.message.code == "invalid"


def test_a_turn_that_writes_nothing_commits_nothing(house: House) -> None:
    house.opens()
    house.store.calls.clear()
    house.takes()
    house.takes(client.Workers(request_id=REQUEST), client.Get(request_id=REQUEST, job_id=job_id(1), full=True))
    assert house.store.calls == []


def test_that_a_worker_has_begun_waits_for_the_next_commit(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    house.store.calls.clear()
    out = house.takes(wire.Accepted(job_id=job_id(1), attempt=1, prompt_id="p"))
    assert (out.to_workers, out.to_clients, house.store.calls) == ([], [], ["update", "story"])
    assert house.state(job_id(1)) is JobState.RUNNING
    house.takes(client.Workers(request_id=REQUEST))
    assert house.store.calls[-1] == "commit", "whoever asks is told of nothing that a crash could undo"


def test_nothing_waits_long_for_a_commit(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    house.takes(wire.Accepted(job_id=job_id(1), attempt=1, prompt_id="p"))
    house.store.calls.clear()
    house.now_ms += UNSAVED_MS
    house.takes()
    house.takes()
    assert house.store.calls == ["commit"]


def test_a_crash_before_that_commit_leaves_the_attempt_leased(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    house.takes(wire.Accepted(job_id=job_id(1), attempt=1, prompt_id="p"))
    found = house.store.crash().job(job_id(1))
    assert found is not None and (found.state, found.attempt) == (JobState.LEASED, 1)


def test_nothing_leaves_when_the_commit_fails(house: House) -> None:
    house.opens()
    house.store.broken = True
    with pytest.raises(StoreError):
        house.takes(submit_of(1))


def test_results_are_heard_before_submits(house: House) -> None:
    house.turn.fleet.rules = house.turn.fleet.leases.rules = Rules(max_queued=1)
    house.opens()
    house.takes(submit_of(1))
    out = house.takes(submit_of(2), complete(job_id(1)), wire.Ready(serial=2, credits=1, seen=1))
    assert [send.message.job_id for send in out.to_workers] == [job_id(2)]
    assert told(out) == [wire.Recorded(job_id=job_id(1), attempt=1)]


def test_a_submit_and_its_twin_in_one_turn_are_one_job(house: House) -> None:
    out = house.takes(submit_of(1, idempotency_key="k"), submit_of(2, idempotency_key="k"))
    first, second = (reply.message for reply in out.to_clients)
    assert (first.existed, second.existed) == (False, True) and first.job.job_id == second.job.job_id


def test_an_end_and_its_twin_in_one_turn_are_both_recorded(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    house.takes(complete(job_id(1)), complete(job_id(1)))
    assert told(house.later()) == [wire.Recorded(job_id=job_id(1), attempt=1)] * 2
    assert house.state(job_id(1)) is JobState.SUCCEEDED


def test_an_end_repeated_to_the_brokers_next_life_is_recorded_from_the_store(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    house.takes(complete(job_id(1)))
    again = House()
    again.store, again.turn.store = house.store, house.store
    again.opens()
    again.takes(complete(job_id(1)))
    assert told(again.later()) == [wire.Recorded(job_id=job_id(1), attempt=1)]


# ---- files


def test_a_result_does_not_count_before_its_files_are_durable(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    assert house.takes(complete(job_id(1), sha256="0" * 64)).to_workers == []
    assert house.state(job_id(1)) is JobState.LEASED
    assert house.turn.sleep_ms(house.now_ms) <= FILES_MS and house.turn.wants_files
    house.files.add("0" * 64)
    house.now_ms += FILES_MS - 1
    assert told(house.takes()) == [wire.Recorded(job_id=job_id(1), attempt=1)]
    assert house.state(job_id(1)) is JobState.SUCCEEDED and not house.turn.wants_files


def test_files_that_do_not_come_are_asked_for_once_for_all_that_was_said_meanwhile(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    lacking = complete(job_id(1), sha256="0" * 64)
    for _ in range(3):
        assert house.takes(lacking).to_workers == []
        house.now_ms += FILES_MS // 3
    house.now_ms += 2
    (answer,) = house.takes().to_workers
    assert answer.message == wire.OutputsMissing(job_id=job_id(1), attempt=1, missing=("0" * 64,))
    assert house.takes().to_workers == [] and house.state(job_id(1)) is JobState.LEASED
    house.files.add("0" * 64)
    house.takes(lacking)
    assert house.state(job_id(1)) is JobState.SUCCEEDED


def test_a_result_that_waits_for_files_is_dropped_when_its_attempt_ends_otherwise(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    house.takes(complete(job_id(1), sha256="0" * 64))
    house.takes(
        dataclasses.replace(Given().worker("gpu-0").introduction(), session=session_id(2)), session=session_id(2)
    )
    house.files.add("0" * 64)
    house.takes()
    assert house.state(job_id(1)) is not JobState.SUCCEEDED


def test_a_result_that_waits_for_files_is_no_sign_of_life_of_the_process_that_said_it(house: House) -> None:
    """Its worker was started anew meanwhile: that is not two processes with one name."""
    house.opens()
    house.takes(submit_of(1))
    for life in (1, 2, 3):
        session, following = session_id(life), session_id(life + 1)
        house.takes(complete(job_id(1), sha256="0" * 64), session=session)
        introduction = dataclasses.replace(Given().worker("gpu-0").introduction(), session=following)
        house.takes(introduction, session=following)
        house.takes()
        (view,) = house.turn.fleet.workers()
        assert (view.session, view.contested) == (following, False)


@pytest.mark.parametrize("stale", ["attempt", "session"])
def test_a_result_that_does_not_count_is_not_asked_for_its_files(house: House, stale: str) -> None:
    house.opens()
    house.takes(submit_of(1))
    lacking = complete(job_id(1), attempt=2 if stale == "attempt" else 1, sha256="0" * 64)
    out = house.takes(lacking, session=session_id(9) if stale == "session" else house.gpu)
    (answer,) = out.to_workers
    assert isinstance(answer.message, wire.Abandon if stale == "attempt" else wire.Refused)


def test_a_job_is_not_accepted_before_its_inputs_are_stored(house: House) -> None:
    files = tuple(InputFile(name=f"{n}.png" * 40, sha256=f"{n:064x}", size_bytes=1) for n in range(256))
    (reply,) = house.takes(submit_of(1, files=files)).to_clients
    assert reply.message.code == "invalid" and "upload them first" in reply.message.text
    assert "0.png" in reply.message.text and len(reply.message.text) <= 4_000
    assert house.state(job_id(1)) is None and not house.store.calls


def test_a_repeated_submit_does_not_ask_for_its_inputs_again(house: House) -> None:
    files = (InputFile(name="a.png", sha256="a" * 64, size_bytes=1),)
    house.files.add("a" * 64)
    house.takes(submit_of(1, files=files))
    house.files.clear()  # the job is over and its inputs were swept
    (reply,) = house.takes(submit_of(1, files=files)).to_clients
    assert reply.message.existed


# ---- the rest


def test_a_reading_request_sees_what_the_same_turn_changed_before_it(house: House) -> None:
    out = house.takes(submit_of(1), client.Get(request_id=REQUEST, job_id=job_id(1), full=True))
    assert out.to_clients[1].message.job.state is JobState.QUEUED
    assert out.to_clients[1].message.workflow == b"{}"


def test_a_snapshot_stands_where_the_stream_stood_when_it_was_made(house: House) -> None:
    out = house.takes(submit_of(1), client.Snapshot(request_id=REQUEST, recent=10), submit_of(2))
    snapshot = out.to_clients[1].message
    assert [job.job_id for job in snapshot.jobs] == [job_id(1)]
    assert [message.job.job_id for message in out.published if message.serial <= snapshot.serial] == [job_id(1)]
    assert [m.job.job_id for m in house.later().published if m.serial > snapshot.serial] == [job_id(2)]


def test_a_snapshot_in_the_middle_of_a_turn_is_followed_by_what_changed_after_it(house: House) -> None:
    house.opens()
    out = house.takes(submit_of(1), client.Snapshot(request_id=REQUEST, recent=10))
    snapshot = out.to_clients[1].message
    assert [job.state for job in snapshot.jobs] == [JobState.QUEUED]
    later = house.later().published
    assert [m.job.state for m in later if isinstance(m, JobChanged)] == [JobState.LEASED]
    assert all(m.serial > snapshot.serial for m in later)


def test_a_turn_tells_of_each_thing_once_and_leaves_no_gap(house: House) -> None:
    house.opens()
    pause, resume = (kind(request_id=REQUEST, worker="gpu-0") for kind in (client.Pause, client.Resume))
    house.later()
    before = house.turn.fleet.serial
    out = house.takes(submit_of(1), submit_of(2), pause, resume)
    assert [type(m) for m in out.published] == [JobChanged, WorkerChanged, JobChanged]
    assert {m.job.job_id: m.job.state for m in out.published if isinstance(m, JobChanged)} == {
        job_id(1): JobState.LEASED,
        job_id(2): JobState.QUEUED,
    }
    assert [m.serial for m in out.published] == [before + 1, before + 2, before + 3]
    assert house.turn.fleet.serial == before + 3


def test_invalid_messages_are_shown_with_the_counts(house: House) -> None:
    house.turn.invalid = 3
    (reply,) = house.takes(client.Statistics(request_id=REQUEST)).to_clients
    assert reply.message.stats.invalid_messages == 3
    house.takes(submit_of(1))
    house.now_ms += 1_000
    (told,) = [message for message in house.takes().published if isinstance(message, StatsChanged)]
    assert told.stats.invalid_messages == 3


def test_a_send_that_found_nobody_keeps_work_from_going_there(house: House) -> None:
    house.opens()
    out = house.takes(Unreachable(house.gpu), submit_of(1))
    assert not out.to_workers
    out = house.takes(wire.Ready(serial=2, credits=1, seen=0))
    assert isinstance(out.to_workers[0].message, wire.Dispatch)


def test_a_worker_that_holds_what_the_crashed_broker_never_wrote_is_told_to_let_go(house: House) -> None:
    house.opens()
    survivor = House()
    survivor.opens()
    from_the_other_life = dataclasses.replace(
        Given().worker("gpu-0").introduction(held(job_id(7))), session=survivor.gpu
    )
    out = survivor.takes(from_the_other_life)
    assert wire.Abandon(job_id=job_id(7), attempt=1, why="it is not leased to you") in [
        s.message for s in out.to_workers
    ]


def test_a_request_about_a_job_that_is_over_is_answered_from_the_store(house: House) -> None:
    house.takes(submit_of(1))
    cancel = client.Cancel(request_id=REQUEST, job_id=job_id(1))
    first, second = (house.takes(cancel).to_clients[0].message for _ in range(2))
    assert first.job.state is JobState.CANCELLED
    assert (second.code, second.text) == ("finished", f"job {job_id(1)} is cancelled: there is nothing left to cancel")
    (paused,) = house.takes(client.Pause(request_id=REQUEST, worker="")).to_clients
    assert paused.message == client.Done(request_id=REQUEST)


def test_a_deleted_job_is_gone_in_one_commit_and_never_runs_again(house: House) -> None:
    said = submit_of(1, idempotency_key="k")
    delete = client.Delete(request_id=REQUEST, job_id=job_id(1))
    house.takes(said, client.Cancel(request_id=REQUEST, job_id=job_id(1)))
    out = house.takes(delete, delete)
    assert [type(reply.message) for reply in out.to_clients] == [client.Done, client.Error]
    assert [type(message) for message in out.published] == [JobGone]
    assert house.store.job(job_id(1)) is None and house.store.story(job_id(1)) == ()
    twins = [said, dataclasses.replace(said, job_id=job_id(2)), dataclasses.replace(said, idempotency_key="")]
    for again in (*twins, dataclasses.replace(said, owner="bob")):
        (reply,) = house.takes(again).to_clients
        assert reply.message.code == "deleted" and job_id(1) in reply.message.text
    (fresh,) = house.takes(submit_of(3, idempotency_key="k", owner="bob")).to_clients
    assert isinstance(fresh.message, client.JobReply)


def test_a_group_whose_key_was_deleted_is_not_run_again_under_new_ids(house: House) -> None:
    def group(first: int) -> client.Submit:
        parts = tuple(
            client.Part(job_id=job_id(number), workflow_bytes=1, form_bytes=0) for number in (first, first + 1)
        )
        return submit_of(99, parts=parts, workflow=b"12", idempotency_key="k")

    house.takes(group(1), client.Cancel(request_id=REQUEST, job_id=job_id(1)))
    house.takes(client.Delete(request_id=REQUEST, job_id=job_id(1)))
    for again in (group(3), group(1)):  # with new ids, and with ids of which the second is still in use
        (reply,) = house.takes(again).to_clients
        assert reply.message.code == "deleted" and job_id(1) in reply.message.text
    assert house.state(job_id(2)) is JobState.QUEUED


def test_a_group_cannot_have_the_id_of_a_job(house: House) -> None:
    house.takes(submit_of(7))
    parts = tuple(client.Part(job_id=job_id(n), workflow_bytes=0, form_bytes=0) for n in (1, 2))
    (reply,) = house.takes(submit_of(7, parts=parts, workflow=b"", form=b"", idempotency_key="k")).to_clients
    assert isinstance(reply.message, client.Error) and reply.message.code == "conflict"


def test_a_group_s_id_is_refused_to_a_job_and_to_another_group_and_nothing_changes(house: House) -> None:
    def group(*numbers: int, key: str) -> client.Submit:
        parts = tuple(client.Part(job_id=job_id(n), workflow_bytes=0, form_bytes=0) for n in numbers)
        return submit_of(7, parts=parts, workflow=b"", form=b"", idempotency_key=key)

    house.takes(group(1, 2, key="k"))
    counts = house.store.counts()
    for said in (submit_of(7), submit_of(7, idempotency_key="l"), group(3, 4, key="l"), group(3, 4, key="")):
        (reply,) = house.takes(said).to_clients
        assert reply.message.code == "conflict" and f"the id of a group {job_id(7)} is in use" in reply.message.text
    assert house.store.counts() == counts
    (again,) = house.takes(group(1, 2, key="k")).to_clients
    assert again.message.existed and again.message.group_id == job_id(7)
