"""What every store must do, run against each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from broker.core.estimates import Figure
from broker.core.model import JobRecord
from broker.core.step import AddStory, DeleteJob, InsertJob, Remember, SaveFigure, UpdateJob, Write
from broker.protocol.errors import StoreError
from broker.protocol.records import (
    Failure,
    InputFile,
    JobState,
    Member,
    Needs,
    Output,
    Reason,
    Timings,
    Why,
)
from broker.protocol.story import Considered, Decision, StoryLine
from broker.store import rules
from broker.store.api import Page, Store, Wanted
from broker.store.rules import STORY_LINES

NewJob = Callable[..., JobRecord]


class Backend(Protocol):
    def crash(self, store: Store) -> Store: ...

    def restart(self, store: Store) -> Store: ...


FULL: dict[str, Any] = {
    "owner": "O'Hara; DROP TABLE job --",
    "title": 'ein "Leuchtturm" bei 夜 🌊 \\ %s',
    "template": "text-to-image",
    "labels": ("night", "sea"),
    "priority": -7,
    "needs": Needs(
        nodes=("KSampler", "SaveImage"),
        models=("checkpoints/x.safetensors",),
        labels=("fast",),
        vram_bytes=2**53,
        pixels=1024 * 1024,
        steps=20,
        signature="abc",
    ),
    "files": (InputFile(name="in.png", sha256="a" * 64, size_bytes=5),),
    "group": Member(group_id="00000000-0000-0000-0000-00000000abcd", index=1, size=2),
}
ENDED: dict[str, Any] = {
    "state": JobState.FAILED,
    "attempt": 3,
    "burnt": 2,
    "deaths": 1,
    "worker": "gpu-1",
    "last_worker": "gpu-2",
    "prompt_id": "p",
    "pin": "gpu-1",
    "priority": 50,
    "started_utc_ms": 0,
    "finished_utc_ms": 2**53,
    "failure": Failure(reason=Reason.NODE_ERROR, text="it\nbroke", node_id="3", node_type="KSampler", traceback="…"),
    "timings": Timings(staging_ms=1, waiting_ms=2, running_ms=3, loading_ms=0, finishing_ms=4),
    "outputs": (
        Output(node_id="9", name="a.png", kind="output", media_type="image/png", sha256="b" * 64, size_bytes=9),
    ),
}


def put(store: Store, *writes: Write) -> None:
    for write in writes:
        store.apply(write)
    store.commit()


def insert(record: JobRecord, workflow: bytes = b"{}", form: bytes = b"") -> InsertJob:
    return InsertJob(record, workflow, form)


def line(number: int, text: str = "", decision: Decision | None = None) -> StoryLine:
    return StoryLine(utc_ms=number, what="leased", attempt=1, burnt=0, worker="gpu-1", text=text, decision=decision)


def pages(store: Store, limit: int, **filters: Any) -> list[list[int]]:
    found, after = [], ""
    while True:
        page: Page = store.page(Wanted(**filters), after=after, limit=limit)
        found.append([job.sequence for job in page.jobs])
        after = page.next
        if not after:
            return found


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.job("00000000-0000-0000-0000-000000000001") is None
    assert store.job_by_key("ann", "key 1") is None
    assert list(store.live()) == []
    assert store.counts() == {}
    assert store.last_sequence() == 0
    assert store.story("00000000-0000-0000-0000-000000000001") == ()
    assert pages(store, 10) == [[]]
    with pytest.raises(KeyError):
        store.workflow("00000000-0000-0000-0000-000000000001")
    with pytest.raises(KeyError):
        store.form("00000000-0000-0000-0000-000000000001")


def test_a_job_comes_back_as_it_was_at_every_point_of_its_life(backend: Backend, store: Store, new_job: NewJob) -> None:
    record = new_job(1, **FULL)
    workflow, form = bytes(range(256)) * 400, b'{"seed": 1}'
    put(store, insert(record, workflow, form))
    store = backend.restart(store)
    assert store.job(record.job_id) == record
    assert list(store.live()) == [record]

    ended = dataclasses.replace(record, **ENDED)
    put(store, UpdateJob(ended))
    assert store.job(record.job_id) == ended
    store = backend.restart(store)
    assert store.job(record.job_id) == ended
    assert store.job_by_key(record.owner, record.idempotency_key) == ended
    assert (store.workflow(record.job_id), store.form(record.job_id)) == (workflow, form)
    assert list(store.live()) == []

    again = dataclasses.replace(ended, state=JobState.QUEUED, failure=None, timings=None, outputs=())
    put(store, UpdateJob(again))
    assert list(backend.restart(store).live()) == [again]


def test_reads_see_the_open_transaction_and_a_crash_forgets_it(backend: Backend, store: Store, new_job: NewJob) -> None:
    kept, lost = new_job(1, labels=("a",)), new_job(2, labels=("a",))
    put(store, insert(kept), AddStory(kept.job_id, line(1)))
    store.apply(insert(lost))
    store.apply(UpdateJob(dataclasses.replace(kept, state=JobState.LEASED)))
    store.apply(AddStory(kept.job_id, line(2)))
    assert store.counts() == {JobState.QUEUED: 1, JobState.LEASED: 1}
    assert store.job_by_key("ann", "key 2") == lost
    assert pages(store, 10, label="a") == [[2, 1]]
    assert store.story(kept.job_id) == (line(1), line(2))

    store = backend.crash(store)
    assert store.job(lost.job_id) is None
    assert store.job_by_key("ann", "key 2") is None
    assert store.job(kept.job_id) == kept
    assert store.counts() == {JobState.QUEUED: 1}
    assert store.last_sequence() == 1
    assert pages(store, 10, label="a") == [[1]]
    assert store.story(kept.job_id) == (line(1),)
    put(store, insert(lost))
    assert store.job(lost.job_id) == lost


def test_a_commit_survives_a_crash_and_an_empty_one_is_allowed(backend: Backend, store: Store, new_job: NewJob) -> None:
    store.commit()
    put(store, insert(new_job(1)), insert(new_job(2)))
    store.commit()
    assert [job.sequence for job in backend.crash(store).live()] == [1, 2]


def test_notes_are_kept_changed_and_forgotten(backend: Backend, store: Store) -> None:
    put(store, Remember("paused/", "yes"), Remember("breaker/gpu-1", "夜"), Remember("draining/gpu-1", "s"))
    store.apply(Remember("breaker/gpu-1", "again"))
    store.apply(Remember("draining/gpu-1", ""))
    store.apply(Remember("never/", ""))
    assert store.notes() == {"paused/": "yes", "breaker/gpu-1": "again"}
    store = backend.crash(store)
    assert store.notes() == {"paused/": "yes", "breaker/gpu-1": "夜", "draining/gpu-1": "s"}


def test_closing_forgets_what_was_not_committed(backend: Backend, store: Store, new_job: NewJob) -> None:
    put(store, insert(new_job(1)))
    store.apply(insert(new_job(2)))
    assert backend.restart(store).last_sequence() == 1


def test_live_jobs_come_oldest_first_and_without_the_ended(backend: Backend, store: Store, new_job: NewJob) -> None:
    states = list(JobState)
    put(store, *(insert(new_job(n, state=state)) for n, state in enumerate(states, 1)))
    live = [n for n, state in enumerate(states, 1) if not state.terminal]
    assert [job.sequence for job in store.live()] == live
    store = backend.restart(store)
    assert [job.sequence for job in store.live()] == live
    assert store.counts() == {state: 1 for state in states}


def test_live_may_be_read_while_jobs_change(store: Store, new_job: NewJob) -> None:
    put(store, *(insert(new_job(n)) for n in range(1, 6)))
    seen = []
    for job in store.live():
        put(store, UpdateJob(dataclasses.replace(job, state=JobState.CANCELLED)))
        seen.append(job.sequence)
    assert seen == [1, 2, 3, 4, 5]
    assert list(store.live()) == []


def test_counts_follow_every_move_and_are_the_same_after_a_restart(
    backend: Backend, store: Store, new_job: NewJob
) -> None:
    first, second = new_job(1), new_job(2)
    put(store, insert(first), insert(second), UpdateJob(dataclasses.replace(first, state=JobState.RUNNING)))
    expected = {JobState.QUEUED: 1, JobState.RUNNING: 1}
    assert store.counts() == expected
    store = backend.restart(store)
    assert store.counts() == expected
    put(store, UpdateJob(dataclasses.replace(first, state=JobState.SUCCEEDED)))
    assert store.counts() == {JobState.QUEUED: 1, JobState.SUCCEEDED: 1}


def test_an_idempotency_key_belongs_to_one_owner_and_an_empty_one_to_nobody(store: Store, new_job: NewJob) -> None:
    mine, yours = new_job(1, idempotency_key="k"), new_job(2, owner="bob", idempotency_key="k")
    keyless = [new_job(n, idempotency_key="") for n in (3, 4)]
    put(store, *map(insert, (mine, yours, *keyless)))
    assert store.job_by_key("ann", "k") == mine
    assert store.job_by_key("bob", "k") == yours
    assert store.job_by_key("ann", "") is None
    assert store.job_by_key("cid", "k") is None


def test_a_group_is_known_by_its_id_as_long_as_one_of_its_jobs_is_there(
    backend: Backend, store: Store, new_job: NewJob
) -> None:
    group = "00000000-0000-0000-0000-000000000099"
    alone, *both = new_job(1), *(new_job(n, group=Member(group_id=group, index=n - 2, size=2)) for n in (2, 3))
    put(store, *map(insert, (alone, *both)))
    assert store.job_in_group(group) == both[0] and store.job_in_group(alone.job_id) is None
    over = [dataclasses.replace(one, state=JobState.CANCELLED, finished_utc_ms=1) for one in both]
    put(store, *map(UpdateJob, over), DeleteJob(both[0].job_id))
    store = backend.restart(store)
    assert store.job_in_group(group) == over[1]
    put(store, DeleteJob(both[1].job_id))
    assert store.job_in_group(group) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence": 1},
        {"sequence": 0},
        {"job_id": "00000000-0000-0000-0000-000000000001"},
        {"idempotency_key": "key 1"},
    ],
    ids=["sequence taken", "sequence too low", "id taken", "key taken"],
)
def test_a_job_that_is_stored_already_closes_the_store(
    backend: Backend, store: Store, new_job: NewJob, fields: dict[str, Any]
) -> None:
    put(store, insert(new_job(1)))
    with pytest.raises(StoreError, match="stored already"):
        store.apply(insert(dataclasses.replace(new_job(2), **fields)))
    with pytest.raises(StoreError, match="closed"):
        store.commit()


@pytest.mark.parametrize(
    "fields",
    [{"owner": "bob"}, {"labels": ("x",)}, {"title": "another"}, {"sequence": 9}, {"idempotency_key": "other"}],
    ids=lambda fields: next(iter(fields)),
)
def test_what_was_submitted_cannot_be_updated(store: Store, new_job: NewJob, fields: dict[str, Any]) -> None:
    record = new_job(1)
    put(store, insert(record))
    with pytest.raises(StoreError, match="may not change"):
        store.apply(UpdateJob(dataclasses.replace(record, **fields)))


@pytest.mark.parametrize("kind", ["update", "story", "delete"])
def test_a_write_for_an_unknown_job_closes_the_store(store: Store, new_job: NewJob, kind: str) -> None:
    stranger = new_job(1)
    writes: dict[str, Write] = {
        "update": UpdateJob(stranger),
        "story": AddStory(stranger.job_id, line(1)),
        "delete": DeleteJob(stranger.job_id),
    }
    with pytest.raises(StoreError, match="not stored"):
        store.apply(writes[kind])
    with pytest.raises(StoreError, match="closed"):
        store.job(stranger.job_id)


def test_a_closed_store_answers_nothing_and_closes_twice(store: Store, new_job: NewJob) -> None:
    store.close()
    store.close()
    for use in (store.commit, store.live, lambda: store.apply(insert(new_job(1))), lambda: store.story("x")):
        with pytest.raises(StoreError, match="closed"):
            use()


# ---- deleting


@pytest.mark.parametrize("restarted", [False, True])
def test_a_deleted_job_leaves_nothing_but_that_its_id_and_key_were_used(
    backend: Backend, store: Store, new_job: NewJob, restarted: bool
) -> None:
    place = Member(group_id="00000000-0000-0000-0000-00000000abcd", index=0, size=2)
    gone, kept = (new_job(n, state=JobState.FAILED, labels=("a", "b"), template="t", group=place) for n in (1, 2))
    put(store, insert(gone), insert(kept), AddStory(gone.job_id, line(1)), AddStory(kept.job_id, line(1)))
    put(store, DeleteJob(gone.job_id))
    store = backend.restart(store) if restarted else store
    assert store.job(gone.job_id) is None and store.job_by_key("ann", "key 1") is None
    assert store.story(gone.job_id) == ()
    assert store.counts() == {JobState.FAILED: 1}
    for filters in ({}, {"label": "a"}, {"template": "t"}, {"group": place.group_id}, {"owner": "ann"}):
        assert pages(store, 9, **filters) == [[2]]
    for read in (store.workflow, store.form):
        with pytest.raises(KeyError):
            read(gone.job_id)
    assert store.is_deleted(gone.job_id) and not store.is_deleted(kept.job_id)
    assert store.deleted_by_key("ann", "key 1") == gone.job_id
    assert [store.deleted_by_key(*key) for key in (("bob", "key 1"), ("ann", "key 2"), ("ann", ""))] == [""] * 3
    assert store.story(kept.job_id) == (line(1),)


def test_the_number_of_the_newest_job_is_not_given_again_when_it_is_deleted(
    backend: Backend, store: Store, new_job: NewJob
) -> None:
    put(store, insert(new_job(1)), insert(new_job(5, state=JobState.CANCELLED)))
    put(store, DeleteJob(new_job(5).job_id))
    assert store.last_sequence() == 5
    store = backend.restart(store)
    assert store.last_sequence() == 5
    with pytest.raises(StoreError, match="stored already"):
        store.apply(insert(new_job(5)))


def test_a_delete_that_was_not_committed_did_not_happen(backend: Backend, store: Store, new_job: NewJob) -> None:
    ended = [new_job(n, state=JobState.SUCCEEDED, labels=("a",)) for n in (1, 2, 3)]
    put(store, *map(insert, ended), AddStory(ended[0].job_id, line(1)))
    store.apply(DeleteJob(ended[0].job_id))
    store.apply(DeleteJob(ended[2].job_id))
    store = backend.crash(store)
    assert pages(store, 2, label="a") == [[3, 2], [1]]
    assert store.job(ended[0].job_id) == ended[0] and store.job_by_key("ann", "key 1") == ended[0]
    assert store.story(ended[0].job_id) == (line(1),)
    assert not store.is_deleted(ended[0].job_id) and store.counts() == {JobState.SUCCEEDED: 3}


def test_only_so_many_deleted_jobs_are_remembered(
    store: Store, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "DELETED_KEPT", 2)
    for number in range(1, 5):
        job = new_job(number, state=JobState.FAILED)
        put(store, insert(job), DeleteJob(job.job_id))
    assert [store.is_deleted(new_job(n).job_id) for n in range(1, 5)] == [False, False, True, True]
    assert store.deleted_by_key("ann", "key 2") == ""
    assert store.deleted_by_key("ann", "key 3") == new_job(3).job_id


def test_a_live_job_is_never_deleted(store: Store, new_job: NewJob) -> None:
    put(store, insert(new_job(1)))
    with pytest.raises(StoreError, match="is queued: only a job that is over"):
        store.apply(DeleteJob(new_job(1).job_id))
    with pytest.raises(StoreError, match="closed"):
        store.commit()


# ---- what is kept, and what may go


def test_jobs_that_are_over_come_in_the_order_in_which_they_ended(
    backend: Backend, store: Store, new_job: NewJob
) -> None:
    ends = {1: 50, 2: 10, 3: None, 4: 10, 5: 30, 6: 20}
    for number, end in ends.items():
        state = JobState.FAILED if end is not None else JobState.RUNNING
        put(store, insert(new_job(number)))
        put(store, UpdateJob(dataclasses.replace(new_job(number), state=state, finished_utc_ms=end)))
    put(store, DeleteJob(new_job(6).job_id))
    put(store, UpdateJob(dataclasses.replace(new_job(5), state=JobState.QUEUED)))
    for restarted in (False, True):
        store = backend.restart(store) if restarted else store
        for before, limit, expected in (
            (None, 9, [2, 4, 1]), (None, 1, [2]), (51, 9, [2, 4, 1]), (50, 9, [2, 4]), (10, 9, []), (50, 1, [2])
        ):  # fmt: skip
            assert [job.sequence for job in store.ended(before_utc_ms=before, limit=limit)] == expected


def test_a_file_is_named_for_as_long_as_a_job_needs_it_or_made_it(
    backend: Backend, store: Store, new_job: NewJob
) -> None:
    def named() -> str:
        return "".join(letter for letter in "abcd" if store.names(letter * 64))

    def made(*letters: str) -> tuple[Output, ...]:
        return tuple(dataclasses.replace(ENDED["outputs"][0], sha256=letter * 64) for letter in letters)

    first, second = new_job(1, **FULL), new_job(2, **(FULL | {"owner": "bob"}))  # both need a
    put(store, insert(first), insert(second))
    assert named() == "a"
    ended = dataclasses.replace(first, state=JobState.FAILED, outputs=made("a", "b", "b", "c"))
    put(store, UpdateJob(ended))
    assert named() == "abc"
    put(store, UpdateJob(dataclasses.replace(ended, outputs=made("d"))))
    assert named() == "ad"
    store.apply(DeleteJob(first.job_id))
    assert named() == "a"
    store = backend.crash(store)
    assert named() == "ad"
    put(store, DeleteJob(first.job_id), UpdateJob(dataclasses.replace(second, state=JobState.CANCELLED)))
    assert named() == "a"
    put(store, DeleteJob(second.job_id))
    store = backend.restart(store)
    assert named() == ""


# ---- stories


def test_a_story_keeps_its_order_and_its_newest_lines(backend: Backend, store: Store, new_job: NewJob) -> None:
    talkative, quiet = new_job(1), new_job(2)
    put(store, insert(talkative), insert(quiet), AddStory(quiet.job_id, line(0, "only")))
    put(store, *(AddStory(talkative.job_id, line(n)) for n in range(STORY_LINES + 5)))
    expected = tuple(line(n) for n in range(5, STORY_LINES + 5))
    assert store.story(talkative.job_id) == expected
    assert store.story(quiet.job_id) == (line(0, "only"),)
    store = backend.restart(store)
    put(store, AddStory(talkative.job_id, line(9_999)))
    assert store.story(talkative.job_id) == (*expected[1:], line(9_999))


def test_why_a_worker_was_chosen_comes_back_with_its_line(backend: Backend, store: Store, new_job: NewJob) -> None:
    considered = Considered(
        worker="gpu-1", wait_ms=1, load_ms=2, run_ms=3, missing_models=("checkpoints/é.safetensors",)
    )
    decision = Decision(
        policy="finish_time",
        why=Why.WAITED_FOR_MODELS,
        worker="gpu-1",
        waited_ms=4,
        waited_for="gpu-1",
        instead="gpu-2",
        candidates=(considered,),
    )
    job = new_job(1, why=Why.WAITED_FOR_MODELS, expect_ms=5, deadline_utc_ms=6, pin="gpu-1")
    put(store, insert(job), AddStory(job.job_id, line(1)), AddStory(job.job_id, line(2, "to gpu-1", decision)))
    store = backend.restart(store)
    assert store.story(job.job_id) == (line(1), line(2, "to gpu-1", decision))
    assert store.job(job.job_id) == job


def test_what_was_learnt_last_counts_and_outlives_a_restart(backend: Backend, store: Store) -> None:
    run, load = Figure("run", "s", "gpu-1", 0.5, 1), Figure("load", "checkpoints/x", "", 11_000.0, 3)
    put(store, SaveFigure(run), SaveFigure(load))
    newer = dataclasses.replace(run, value=0.25, samples=2)
    put(store, SaveFigure(newer))
    store = backend.restart(store)
    assert sorted(store.figures(), key=lambda one: one.kind) == [load, newer]
    store.apply(SaveFigure(dataclasses.replace(load, value=1.0)))
    assert load in backend.crash(store).figures()
