"""Requests that change nothing: what they answer, and that every answer fits on the wire whatever it is about."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from broker.core.step import AddStory, InsertJob, UpdateJob
from broker.protocol import client
from broker.protocol.codec import BROKER_TO_CLIENT, decode, encode
from broker.protocol.records import JobState, Phase, ProgressKind, Reason
from broker.protocol.story import StoryLine
from broker.reading import SNAPSHOT_LIVE, Reading, answer
from broker.store.memory import MemoryStore
from tests.core.broker.given import ALL_JOBS, NEEDS, OUTPUT, REQUEST, UTC_MS, Given, because, job_id, record


class Reader:
    """A store filled by hand beside a fleet, and questions about both."""

    def __init__(self) -> None:
        self.given = Given()
        self.store = MemoryStore()

    def keeps(self, *records: Any) -> None:
        for one in records:
            self.store.apply(InsertJob(dataclasses.replace(one, state=JobState.QUEUED), b"workflow", b"form"))
            self.store.apply(UpdateJob(one))
            self.given.records[one.job_id] = one
        self.store.commit()
        self.given.start()

    def asks(self, kind: type[Any], **about: Any) -> Any:
        reply = answer(Reading(self.given.fleet, self.store, self.given.now), kind(request_id=REQUEST, **about))
        assert decode(encode(reply), BROKER_TO_CLIENT) == reply
        assert reply.request_id == REQUEST
        return reply

    def lists(self, **about: Any) -> Any:
        return self.asks(client.List, **(ALL_JOBS | about))

    def pages(self, **about: Any) -> list[str]:
        """Every job's id, page after page."""
        found, after = [], ""
        while True:
            page = self.lists(after=after, **about)
            assert page.jobs
            found += [job.job_id for job in page.jobs]
            after = page.next
            if not after:
                return found


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_one_job_with_and_without_what_was_submitted(reader: Reader) -> None:
    reader.keeps(record(1))
    brief = reader.asks(client.Get, job_id=job_id(1), full=False)
    assert (brief.job.job_id, brief.workflow, brief.form) == (job_id(1), b"", b"")
    full = reader.asks(client.Get, job_id=job_id(1), full=True)
    assert (full.workflow, full.form) == (b"workflow", b"form")


@pytest.mark.parametrize(
    ("kind", "about"), [(client.Get, {"full": False}), (client.Get, {"full": True}), (client.Story, {})]
)
def test_a_job_that_is_not_known_is_named(reader: Reader, kind: type[Any], about: dict[str, Any]) -> None:
    reply = reader.asks(kind, job_id=job_id(404), **about)
    assert reply.code == "not_found" and reply.text == f"no job has the id {job_id(404)}: check it, or list the jobs"


def test_a_live_job_is_shown_as_the_core_knows_it(reader: Reader) -> None:
    reader.keeps(record(1, state=JobState.RUNNING, attempt=1, worker="gpu-0", prompt_id="p"))
    reader.given.job(job_id(1)).phase = Phase.FINISHING
    assert reader.asks(client.Get, job_id=job_id(1), full=False).job.phase is Phase.FINISHING
    assert reader.lists().jobs[0].phase is Phase.FINISHING


def test_pages_are_filtered_and_newest_first(reader: Reader) -> None:
    reader.keeps(*(record(n, owner="ann" if n % 2 else "bob", labels=("x",) if n > 2 else ()) for n in range(1, 6)))
    assert reader.pages(limit=2) == [job_id(n) for n in (5, 4, 3, 2, 1)]
    assert reader.pages(limit=1, owner="ann", label="x") == [job_id(5), job_id(3)]
    assert not reader.lists(states=(JobState.FAILED,)).jobs


@pytest.mark.parametrize("after", ["x", "-1", "999", "\x1b[31m" * 12])
def test_a_page_key_that_was_never_given_is_refused_by_name(reader: Reader, after: str) -> None:
    reader.keeps(record(1))
    reply = reader.lists(after=after)
    assert reply.code == "invalid" and repr(after) in reply.text and "start again without it" in reply.text


def test_a_page_of_long_failures_is_cut_where_the_header_ends_and_goes_on(reader: Reader) -> None:
    long = dataclasses.replace(because(Reason.NODE_ERROR, "é" * 4_000), traceback="ü" * 16_000)
    reader.keeps(*(record(n, state=JobState.FAILED, failure=long) for n in range(1, 101)))
    assert 1 <= len(reader.lists().jobs) < 100
    assert reader.pages() == [job_id(n) for n in range(100, 0, -1)]


def test_a_page_of_jobs_with_many_pictures_is_cut_too(reader: Reader) -> None:
    many = tuple(dataclasses.replace(OUTPUT, name=f"{n}.png") for n in range(1_000))
    reader.keeps(*(record(n, state=JobState.SUCCEEDED, outputs=many) for n in range(1, 21)))
    assert reader.pages() == [job_id(n) for n in range(20, 0, -1)]


def line_of(what: str, text: str = "") -> StoryLine:
    return StoryLine(utc_ms=UTC_MS, what=what, attempt=1, burnt=0, worker="", text=text, decision=None)


def test_a_long_story_keeps_its_newest_lines(reader: Reader) -> None:
    reader.keeps(record(1))
    for number in range(1_200):
        reader.store.apply(AddStory(job_id(1), line_of("queued", f"{number} " + "é" * 3_990)))
    lines = reader.asks(client.Story, job_id=job_id(1)).lines
    numbers = [int(line.text.split()[0]) for line in lines]
    assert numbers == list(range(1_200 - len(lines), 1_200)) and len(lines) > 100


def test_a_story_is_told_whole_when_it_fits(reader: Reader) -> None:
    reader.keeps(record(1))
    lines = [line_of(what) for what in ("queued", "leased")]
    for line in lines:
        reader.store.apply(AddStory(job_id(1), line))
    assert reader.asks(client.Story, job_id=job_id(1)).lines == tuple(lines)


def test_a_snapshot_has_workers_what_they_hold_the_newest_jobs_and_where_the_stream_stands(reader: Reader) -> None:
    running = record(1, state=JobState.RUNNING, attempt=1, worker="gpu-0", prompt_id="p")
    reader.keeps(running, record(2), record(3, state=JobState.SUCCEEDED), record(4))
    reader.given.joined("gpu-0")
    snapshot = reader.asks(client.Snapshot, recent=2)
    assert [job.job_id for job in snapshot.jobs] == [job_id(4), job_id(3), job_id(1)]
    assert [one.worker for one in snapshot.workers] == ["gpu-0"]
    assert (snapshot.stream, snapshot.serial) == (reader.given.fleet.stream, reader.given.fleet.serial)
    assert (snapshot.stats.running, snapshot.stats.queued, snapshot.stats.succeeded) == (1, 2, 1)
    assert [job.job_id for job in reader.asks(client.Snapshot, recent=0).jobs] == [job_id(1)]


def test_a_snapshot_of_a_large_fleet_names_every_worker_and_fits_with_fewer_jobs(reader: Reader) -> None:
    long = because(Reason.WORKER_LOST, "é" * 2_000)
    lost = record(1, state=JobState.RUNNING, attempt=1, worker="gpu-0", failure=long)
    reader.keeps(*(dataclasses.replace(lost, job_id=job_id(n), sequence=n) for n in range(1, SNAPSHOT_LIVE + 1)))
    for number in range(1_000):
        reader.given.joined(f"card-{number}", credits=0)
    snapshot = reader.asks(client.Snapshot, recent=200)
    assert len(snapshot.workers) == 1_000 and 100 < len(snapshot.jobs) < SNAPSHOT_LIVE
    assert [job.job_id for job in snapshot.jobs] == [job_id(SNAPSHOT_LIVE - n) for n in range(len(snapshot.jobs))]


def test_workers_that_say_too_much_do_not_keep_a_snapshot_from_being_read(reader: Reader) -> None:
    for number in range(1_200):
        reader.given.joined(f"card-{number}", credits=0, labels=("é" * 200,) * 32)
    assert 100 < len(reader.asks(client.Snapshot, recent=0).workers) < 1_200


def test_a_snapshot_does_not_look_at_what_waits(reader: Reader) -> None:
    reader.keeps(*(record(n, needs=NEEDS) for n in range(1, 50)))

    class Untouchable(dict[str, Any]):
        def items(self) -> Any:
            raise AssertionError("the whole queue was walked through")

        values = __iter__ = items

    reader.given.fleet.jobs.live = Untouchable(reader.given.fleet.jobs.live)
    reading = Reading(reader.given.fleet, reader.store, reader.given.now)
    assert [job.job_id for job in reading.snapshot_jobs(1)] == [job_id(49)]


def test_workers_and_counts(reader: Reader) -> None:
    reader.given.joined("gpu-0")
    assert [one.worker for one in reader.asks(client.Workers).workers] == ["gpu-0"]
    assert reader.asks(client.Statistics).stats.workers == 1


def test_what_a_worker_only_holds_ready_is_counted_as_waiting(reader: Reader) -> None:
    worker = reader.given.joined("gpu-0", credits=2)
    begun = reader.given.running(worker, 1)
    worker.reports(begun, 1, ProgressKind.STARTED)
    reader.given.leased(worker, 2)
    reader.given.leased(reader.given.joined("gpu-1"), 3, owner="bob")
    reader.given.submitted(4)
    load = reader.asks(client.Load, owner="")
    assert {one.owner: (one.queued, one.running) for one in load.owners} == {"ann": (2, 1), "bob": (1, 0)}
    assert [(one.queued, one.running) for one in load.models] == [(3, 1)]
    mine = reader.asks(client.Load, owner="ann")
    assert [(one.owner, one.queued, one.running) for one in mine.owners] == [("ann", 2, 1)]
    assert [(one.queued, one.running) for one in mine.models] == [(2, 1)]
