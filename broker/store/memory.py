"""The store in memory: for tests and for the simulation, which needs one that forgets what was not committed.

Writes go straight into the tables and leave behind how to take them back; `commit` drops that, `crash` uses it, so
both cost what was written and never what is stored. Records are immutable and never copied. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator
from typing import Any

from broker.core.estimates import Figure
from broker.core.model import JobRecord
from broker.core.step import AddStory, DeleteJob, InsertJob, Remember, SaveFigure, UpdateJob, Write
from broker.protocol.errors import StoreError
from broker.protocol.records import JobState
from broker.protocol.story import StoryLine
from broker.store import rules, words
from broker.store.api import Page, Wanted

_ABSENT: Any = object()


@dataclasses.dataclass(slots=True)
class _Tables:
    #: By job_id, in the order of their sequence.
    jobs: dict[str, JobRecord] = dataclasses.field(default_factory=dict)
    #: job_id -> (workflow, form)
    payloads: dict[str, tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    #: job_id -> the words it is searched by, in their order
    words: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    #: (owner, idempotency_key) -> job_id
    keys: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    #: group_id -> the job_ids of its jobs that are stored, in the order of their sequence
    groups: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    stories: dict[str, tuple[StoryLine, ...]] = dataclasses.field(default_factory=dict)
    #: sha256 -> how many jobs name that file
    references: dict[str, int] = dataclasses.field(default_factory=dict)
    counts: dict[JobState, int] = dataclasses.field(default_factory=dict)
    #: job_id -> (owner, idempotency_key) of deleted jobs, and the other way round where there is a key.
    deleted: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    deleted_keys: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    #: "last": the highest sequence ever given.
    sequences: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    #: (kind, subject, worker) -> figure
    figures: dict[tuple[str, str, str], Figure] = dataclasses.field(default_factory=dict)


class MemoryStore:
    def __init__(self) -> None:
        self._open: _Tables | None = _Tables()
        #: (table, key, value before) of each change since the last commit, oldest first.
        self._undo: list[tuple[dict[Any, Any], Hashable, Any]] = []

    @property
    def _tables(self) -> _Tables:
        if self._open is None:
            raise StoreError("the store is closed")
        return self._open

    def apply(self, write: Write) -> None:
        tables = self._tables
        try:
            match write:
                case InsertJob(record, workflow, form, text):
                    self._insert(tables, record, workflow, form)
                    self._set(tables.words, record.job_id, words.words_of(f"{record.title}\n{text}"))
                case UpdateJob(record):
                    self._update(tables, record)
                case DeleteJob(job_id):
                    self._delete(tables, job_id)
                case AddStory(job_id, line):
                    if job_id not in tables.jobs:
                        raise rules.unknown(job_id)
                    self._set(tables.stories, job_id, (*tables.stories.get(job_id, ()), line)[-rules.STORY_LINES :])
                case Remember(key, value):
                    self._set(tables.notes, key, value)
                case SaveFigure(figure):
                    self._save(tables, figure)
        except StoreError:
            self.close()
            raise

    def commit(self) -> None:
        if self._open is None:
            raise StoreError("the store is closed")
        self._undo.clear()

    def checkpoint(self) -> None:
        """Nothing to fold in: there is no log."""

    def close(self) -> None:
        self._open = None

    def crash(self) -> MemoryStore:
        """What another process would find after this one died: all that was committed, nothing else."""
        survivor = MemoryStore()
        survivor._open = self._tables
        for table, key, before in reversed(self._undo):
            if before is _ABSENT:
                del table[key]
            else:
                table[key] = before
        survivor._open.jobs = dict(sorted(survivor._open.jobs.items(), key=lambda item: item[1].sequence))
        self.close()
        return survivor

    def job(self, job_id: str) -> JobRecord | None:
        return self._tables.jobs.get(job_id)

    def job_by_key(self, owner: str, idempotency_key: str) -> JobRecord | None:
        job_id = self._tables.keys.get((owner, idempotency_key))
        return None if job_id is None else self._tables.jobs[job_id]

    def job_in_group(self, group_id: str) -> JobRecord | None:
        members = self._tables.groups.get(group_id)
        return None if members is None else self._tables.jobs[members[0]]

    def is_deleted(self, job_id: str) -> bool:
        return job_id in self._tables.deleted

    def deleted_by_key(self, owner: str, idempotency_key: str) -> str:
        return self._tables.deleted_keys.get((owner, idempotency_key), "")

    def workflow(self, job_id: str) -> bytes:
        return self._tables.payloads[job_id][0]

    def form(self, job_id: str) -> bytes:
        return self._tables.payloads[job_id][1]

    def live(self) -> Iterator[JobRecord]:
        return iter([record for record in self._tables.jobs.values() if not record.state.terminal])

    def page(self, wanted: Wanted, *, after: str, limit: int) -> Page:
        before, asked = rules.before(after, self.last_sequence()), words.phrases(wanted.text)
        found = [
            record
            for record in reversed(self._tables.jobs.values())
            if record.sequence < before and rules.wants(wanted, record) and self._says(record.job_id, asked)
        ]
        return rules.page_of(found[: limit + 1], limit)

    def ended(self, *, before_utc_ms: int | None, limit: int) -> tuple[JobRecord, ...]:
        over = [
            (record.finished_utc_ms, record.sequence, record)
            for record in self._tables.jobs.values()
            if record.state.terminal and record.finished_utc_ms is not None
        ]
        early = [one for one in sorted(over) if before_utc_ms is None or one[0] < before_utc_ms]
        return tuple(record for _, _, record in early[:limit])

    def names(self, sha256: str) -> bool:
        return self._tables.references.get(sha256, 0) > 0

    def story(self, job_id: str) -> tuple[StoryLine, ...]:
        return self._tables.stories.get(job_id, ())

    def figures(self) -> Iterator[Figure]:
        return iter(list(self._tables.figures.values()))

    def counts(self) -> dict[JobState, int]:
        return {state: count for state, count in self._tables.counts.items() if count}

    def notes(self) -> dict[str, str]:
        return {key: value for key, value in self._tables.notes.items() if value}

    def last_sequence(self) -> int:
        return self._tables.sequences.get("last", 0)

    def _save(self, tables: _Tables, figure: Figure) -> None:
        key = figure.kind, figure.subject, figure.worker
        self._set(tables.figures, key, figure)

    def _insert(self, tables: _Tables, record: JobRecord, workflow: bytes, form: bytes) -> None:
        key = (record.owner, record.idempotency_key)
        if record.job_id in tables.jobs or record.sequence <= self.last_sequence() or key in tables.keys:
            raise rules.taken(record)
        self._set(tables.sequences, "last", record.sequence)
        self._set(tables.jobs, record.job_id, record)
        self._set(tables.payloads, record.job_id, (workflow, form))
        if record.idempotency_key:
            self._set(tables.keys, key, record.job_id)
        if record.group is not None:
            group_id = record.group.group_id
            self._set(tables.groups, group_id, (*tables.groups.get(group_id, ()), record.job_id))
        self._refer(tables, rules.named(record), 1)
        self._count(tables, record.state, 1)

    def _update(self, tables: _Tables, record: JobRecord) -> None:
        old = tables.jobs.get(record.job_id)
        if old is None:
            raise rules.unknown(record.job_id)
        if rules.submitted(old) != rules.submitted(record):
            raise rules.changed(record)
        self._set(tables.jobs, record.job_id, record)
        self._refer(tables, rules.named(record), 1)
        self._refer(tables, rules.named(old), -1)
        self._count(tables, old.state, -1)
        self._count(tables, record.state, 1)

    def _delete(self, tables: _Tables, job_id: str) -> None:
        record = tables.jobs.get(job_id)
        if record is None:
            raise rules.unknown(job_id)
        if not record.state.terminal:
            raise rules.live(record)
        key = (record.owner, record.idempotency_key)
        for table in (tables.stories, tables.payloads, tables.words, tables.jobs):
            self._drop(table, job_id)
        if record.group is not None:
            self._leave(tables, record.group.group_id, job_id)
        self._set(tables.deleted, job_id, key)
        if record.idempotency_key:
            self._drop(tables.keys, key)
            self._set(tables.deleted_keys, key, job_id)
        self._refer(tables, rules.named(record), -1)
        self._count(tables, record.state, -1)
        if len(tables.deleted) > rules.DELETED_KEPT:
            oldest, key = next(iter(tables.deleted.items()))
            self._drop(tables.deleted, oldest)
            self._drop(tables.deleted_keys, key)

    def _leave(self, tables: _Tables, group_id: str, job_id: str) -> None:
        others = tuple(one for one in tables.groups[group_id] if one != job_id)
        if others:
            self._set(tables.groups, group_id, others)
        else:
            self._drop(tables.groups, group_id)

    def _says(self, job_id: str, asked: tuple[words.Phrase, ...]) -> bool:
        return all(words.contains(self._tables.words[job_id], phrase) for phrase in asked)

    def _refer(self, tables: _Tables, files: frozenset[str], by: int) -> None:
        for sha256 in files:
            left = tables.references.get(sha256, 0) + by
            if left:
                self._set(tables.references, sha256, left)
            else:
                self._drop(tables.references, sha256)

    def _count(self, tables: _Tables, state: JobState, by: int) -> None:
        self._set(tables.counts, state, tables.counts.get(state, 0) + by)

    def _set(self, table: dict[Any, Any], key: Hashable, value: Any) -> None:
        self._undo.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Hashable) -> None:
        if key in table:
            self._undo.append((table, key, table.pop(key)))
