"""Both stores against a dict: any order of writes, commits, crashes and restarts gives the same answers."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.model import JobRecord
from broker.core.step import AddStory, DeleteJob, InsertJob, Remember, UpdateJob
from broker.protocol.records import Failure, InputFile, JobState, Member, Needs, Output, Reason, Timings
from broker.protocol.story import StoryLine
from broker.store import rules
from broker.store.api import Store, Wanted
from broker.store.memory import MemoryStore
from broker.store.sqlite import SqliteStore
from broker.store.words import Phrase, contains, phrases, words_of

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
numbers = st.integers(0, 2**53)
owners, labels = st.sampled_from(["", "ann", "bob"]), st.sampled_from(["a", "b", "c"])
templates = st.sampled_from(["", "one", "two"])
group_ids = st.sampled_from([f"00000000-0000-0000-0000-{n:012}" for n in range(2)])
states = st.sampled_from(list(JobState))
needs = st.builds(
    Needs,
    nodes=st.tuples(words),
    models=st.tuples(words),
    labels=st.tuples(words),
    vram_bytes=numbers,
    pixels=numbers,
    steps=st.just(4),
    signature=words,
)
digests = st.sampled_from(["a" * 64, "b" * 64, "c" * 64])
files = st.builds(InputFile, name=words, sha256=digests, size_bytes=numbers)
outputs = st.builds(
    Output,
    node_id=words,
    name=words,
    kind=words,
    media_type=words,
    sha256=digests,
    size_bytes=numbers,
)
failures = st.builds(
    Failure, reason=st.sampled_from(list(Reason)), text=words, node_id=words, node_type=words, traceback=words
)
timings = st.builds(
    Timings, staging_ms=numbers, waiting_ms=numbers, running_ms=numbers, loading_ms=numbers, finishing_ms=numbers
)
jobs = st.builds(
    JobRecord,
    job_id=st.uuids().map(str),
    sequence=st.just(0),
    owner=owners,
    idempotency_key=st.sampled_from(["", "k", "l"]),
    body_sha256=st.just("0" * 64),
    title=words,
    template=templates,
    labels=st.lists(labels, max_size=3).map(tuple),
    priority=st.integers(-100, 100),
    needs=needs,
    files=st.lists(files, max_size=2).map(tuple),
    created_utc_ms=st.just(0),
    group=st.none() | st.builds(Member, group_id=group_ids, index=st.integers(0, 63), size=st.integers(2, 64)),
    state=states,
)
lives = st.fixed_dictionaries(
    {
        "state": states,
        "attempt": st.integers(0, 10_000),
        "worker": words,
        "pin": words,
        "finished_utc_ms": st.none() | numbers,
        "failure": st.none() | failures,
        "timings": st.none() | timings,
        "outputs": st.lists(outputs, max_size=2).map(tuple),
    }
)
lines = st.builds(
    StoryLine,
    utc_ms=numbers,
    what=words,
    attempt=st.integers(0, 10_000),
    burnt=st.integers(0, 20),
    worker=words,
    text=words,
    decision=st.none(),
)


payloads = st.tuples(st.binary(max_size=20), st.binary(max_size=20))
#: Few words, so that a query often finds something, and any text.
texts = st.lists(st.sampled_from(["light", "lighthouse", "LI", "灯塔", "塔", "a-b"]), max_size=4).map(" ".join) | words
times = st.none() | st.integers(-(2**63), -(2**63) + 9)
filters = st.builds(
    Wanted,
    owner=owners,
    states=st.lists(states, max_size=3),
    template=templates,
    label=labels | st.just(""),
    group=group_ids | st.just(""),
    since_utc_ms=times,
    until_utc_ms=times,
    text=st.just("") | texts,
)


def is_wanted(wanted: Wanted, job: JobRecord) -> bool:
    return all(
        (
            not wanted.owner or job.owner == wanted.owner,
            not wanted.states or job.state in wanted.states,
            not wanted.template or job.template == wanted.template,
            not wanted.label or wanted.label in job.labels,
            not wanted.group or (job.group is not None and job.group.group_id == wanted.group),
            wanted.since_utc_ms is None or job.created_utc_ms >= wanted.since_utc_ms,
            wanted.until_utc_ms is None or job.created_utc_ms < wanted.until_utc_ms,
        )
    )


@dataclasses.dataclass
class Model:
    jobs: dict[str, JobRecord] = dataclasses.field(default_factory=dict)
    payloads: dict[str, tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    stories: dict[str, tuple[StoryLine, ...]] = dataclasses.field(default_factory=dict)
    #: job_id -> (owner, idempotency_key)
    deleted: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    last_sequence: int = 0

    def copy(self) -> Model:
        return Model(
            jobs=dict(self.jobs),
            payloads=dict(self.payloads),
            texts=dict(self.texts),
            stories=dict(self.stories),
            deleted=dict(self.deleted),
            notes=dict(self.notes),
            last_sequence=self.last_sequence,
        )


class StoreMachine(RuleBasedStateMachine):
    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.now, self.saved = Model(), Model()

    def crash_store(self) -> Store:
        raise NotImplementedError

    def restart_store(self) -> Store:
        raise NotImplementedError

    @rule(job=jobs, gap=st.integers(1, 3), later=st.integers(0, 2), payload=payloads, text=texts)
    def submit(self, job: JobRecord, gap: int, later: int, payload: tuple[bytes, bytes], text: str) -> None:
        taken = {(one.owner, one.idempotency_key) for one in self.now.jobs.values()} | {*self.now.deleted.values()}
        if (job.owner, job.idempotency_key) in taken:
            job = dataclasses.replace(job, idempotency_key="")
        created = max((one.created_utc_ms for one in self.now.jobs.values()), default=-(2**63)) + later
        job = dataclasses.replace(job, sequence=self.now.last_sequence + gap, created_utc_ms=created)
        self.store.apply(InsertJob(job, *payload, text))
        self.now.jobs[job.job_id] = job
        self.now.payloads[job.job_id] = payload
        self.now.texts[job.job_id] = text
        self.now.last_sequence = job.sequence

    @precondition(lambda self: self.now.jobs)
    @rule(data=st.data(), life=lives)
    def move(self, data: st.DataObject, life: dict[str, Any]) -> None:
        job = dataclasses.replace(self.any_job(data), **life)
        self.store.apply(UpdateJob(job))
        self.now.jobs[job.job_id] = job

    @precondition(lambda self: self.now.jobs)
    @rule(data=st.data(), line=lines)
    def tell(self, data: st.DataObject, line: StoryLine) -> None:
        job_id = self.any_job(data).job_id
        self.store.apply(AddStory(job_id, line))
        self.now.stories[job_id] = (*self.now.stories.get(job_id, ()), line)

    @precondition(lambda self: any(job.state.terminal for job in self.now.jobs.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        over = sorted(job.job_id for job in self.now.jobs.values() if job.state.terminal)
        job_id = data.draw(st.sampled_from(over))
        self.store.apply(DeleteJob(job_id))
        job = self.now.jobs.pop(job_id)
        self.now.payloads.pop(job_id)
        self.now.texts.pop(job_id)
        self.now.stories.pop(job_id, None)
        self.now.deleted[job_id] = (job.owner, job.idempotency_key)

    @rule(key=words, value=words)
    def remember(self, key: str, value: str) -> None:
        self.store.apply(Remember(key, value))
        self.now.notes[key] = value

    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.saved = self.now.copy()

    @rule()
    def crash(self) -> None:
        self.store = self.crash_store()
        self.now = self.saved.copy()

    @rule()
    def restart(self) -> None:
        self.store = self.restart_store()
        self.now = self.saved.copy()

    @precondition(lambda self: self.now.jobs)
    @rule(data=st.data())
    def read_one(self, data: st.DataObject) -> None:
        job = self.any_job(data)
        assert self.store.job(job.job_id) == job
        assert (self.store.workflow(job.job_id), self.store.form(job.job_id)) == self.now.payloads[job.job_id]
        assert self.store.story(job.job_id) == self.now.stories.get(job.job_id, ())
        found = self.store.job_by_key(job.owner, job.idempotency_key)
        assert found == (job if job.idempotency_key else None)

    @rule(group_id=group_ids)
    def read_group(self, group_id: str) -> None:
        found = [job for job in self.now.jobs.values() if job.group is not None and job.group.group_id == group_id]
        assert self.store.job_in_group(group_id) == min(found, key=lambda job: job.sequence, default=None)

    @rule(wanted=filters, limit=st.integers(1, 4))
    def read_pages(self, wanted: Wanted, limit: int) -> None:
        newest_first = sorted(self.now.jobs.values(), key=lambda job: -job.sequence)
        asked = phrases(wanted.text)
        expected = [job for job in newest_first if is_wanted(wanted, job) and self.says(job, asked)]
        found: list[JobRecord] = []
        after = ""
        while True:
            page = self.store.page(wanted, after=after, limit=limit)
            assert len(page.jobs) <= limit
            found += page.jobs
            after = page.next
            if not after:
                break
        assert found == expected

    def says(self, job: JobRecord, asked: tuple[Phrase, ...]) -> bool:
        said = words_of(f"{job.title}\n{self.now.texts[job.job_id]}")
        return all(contains(said, phrase) for phrase in asked)

    @rule()
    def read_live(self) -> None:
        live = [job for job in self.now.jobs.values() if not job.state.terminal]
        assert list(self.store.live()) == sorted(live, key=lambda job: job.sequence)

    @rule(before=st.none() | st.integers(0, 2**53), limit=st.integers(1, 4))
    def read_ended(self, before: int | None, limit: int) -> None:
        over = [
            (job.finished_utc_ms, job.sequence, job)
            for job in self.now.jobs.values()
            if job.state.terminal and job.finished_utc_ms is not None
        ]
        early = sorted(one for one in over if before is None or one[0] < before)[:limit]
        assert self.store.ended(before_utc_ms=before, limit=limit) == tuple(job for _, _, job in early)

    @invariant()
    def totals_agree(self) -> None:
        assert self.store.counts() == Counter(job.state for job in self.now.jobs.values())
        assert self.store.last_sequence() == self.now.last_sequence
        named = {sha256 for job in self.now.jobs.values() for sha256 in rules.named(job)}
        assert {s for s in ("a" * 64, "b" * 64, "c" * 64) if self.store.names(s)} == named
        assert self.store.notes() == {key: value for key, value in self.now.notes.items() if value}

    @precondition(lambda self: self.now.deleted)
    @rule(data=st.data())
    def ask_for_the_deleted(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.now.deleted)))
        assert self.store.is_deleted(job_id) and self.store.job(job_id) is None
        owner, key = self.now.deleted[job_id]
        assert self.store.deleted_by_key(owner, key) == (job_id if key else "")

    def any_job(self, data: st.DataObject) -> JobRecord:
        return self.now.jobs[data.draw(st.sampled_from(sorted(self.now.jobs)))]

    def teardown(self) -> None:
        self.store.close()


class MemoryMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()

    def crash_store(self) -> Store:
        assert isinstance(self.store, MemoryStore)
        return self.store.crash()

    restart_store = crash_store


class SqliteMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "0" / "fleet.db"
        self.store = SqliteStore(self.path)

    def crash_store(self) -> Store:
        copy = self.path.parent.with_name(str(int(self.path.parent.name) + 1)) / "fleet.db"
        copy.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        self.store.close()
        self.path = copy
        return SqliteStore(copy)

    def restart_store(self) -> Store:
        self.store.close()
        return SqliteStore(self.path)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestMemoryStore = MemoryMachine.TestCase
TestMemoryStore.settings = settings(max_examples=60, stateful_step_count=40)
TestSqliteStore = SqliteMachine.TestCase
TestSqliteStore.settings = settings(max_examples=30, stateful_step_count=40)
