"""A job's record as a row: columns for what is searched by and for what is each job's own, JSON for what has parts and is
alike in many. Pure.

JSON, because an operator can read it with the sqlite3 shell and a migration can mend it in SQL. What is alike is read
once for all jobs that have it alike: a start reads every job that waits. A new field of JobRecord with a default needs
no migration; a new field of a record inside it (Needs, Output, …) does.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final

from broker.core.model import JobRecord
from broker.protocol.records import (
    Failure,
    InputFile,
    JobState,
    Labels,
    Member,
    Needs,
    Output,
    Timings,
    Why,
)
from broker.protocol.schema import Many, converter
from broker.protocol.story import Decision, StoryLine

#: In the order of the row.
COLUMNS: Final = (
    "sequence",
    "job_id",
    "owner",
    "idempotency_key",
    "body_sha256",
    "title",
    "template",
    "submitted",
    "files",
    "created_utc_ms",
    "group_id",
    "group_index",
    "group_size",
    "state",
    "finished_utc_ms",
    "life",
)

_CONVERTERS: Final = {
    "labels": converter(Labels),
    "needs": converter(Needs),
    "failure": converter(Failure | None),
    "timings": converter(Timings | None),
    "why": converter(Why | None),
    "outputs": converter(Annotated[tuple[Output, ...], Many(1_000)]),
}
_FILES: Final = converter(Annotated[tuple[InputFile, ...], Many(256)])
_DECISION: Final = converter(Decision)
_STATES: Final = {state.value: state for state in JobState}
_DEFAULTS: Final = {field.name: field.default for field in dataclasses.fields(JobRecord)}
#: In the order of the record, where those of its life are the last. Of these all have a default.
_SUBMITTED: Final = ("labels", "needs")
_LIFE: Final = tuple(_DEFAULTS)[tuple(_DEFAULTS).index("priority") :]
_asked: Final[Callable[[JobRecord], tuple[Any, ...]]] = attrgetter(*_SUBMITTED)
_lived: Final[Callable[[JobRecord], tuple[Any, ...]]] = attrgetter(*_LIFE)
#: By the order of its fields.
_record: Final[Callable[..., JobRecord]] = JobRecord
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_row(record: JobRecord) -> tuple[Any, ...]:
    group = record.group
    return (
        record.sequence,
        record.job_id,
        record.owner,
        record.idempotency_key,
        record.body_sha256,
        record.title,
        record.template,
        _written(_SUBMITTED, _asked(record)),
        _encode(_FILES[0](record.files)),
        record.created_utc_ms,
        group.group_id if group is not None else None,
        group.index if group is not None else None,
        group.size if group is not None else None,
        record.state.value,
        record.finished_utc_ms,
        life_of(record),
    )


def life_of(record: JobRecord) -> str:
    return _written(_LIFE, _lived(record))


@functools.lru_cache(maxsize=1_024)
def _written(names: Sequence[str], values: Sequence[Any]) -> str:
    """The same for every job that has just come, and for many that wait."""
    fields = dict(zip(names, values, strict=True))
    for name in _CONVERTERS.keys() & fields.keys():
        fields[name] = _CONVERTERS[name][0](fields[name])
    return _encode(fields)


def from_row(row: Sequence[Any]) -> JobRecord:
    """The record of a row. Raises ValueError, TypeError, KeyError or RemoteProtocolError for one that to_row never
    made."""
    (
        sequence, job_id, owner, idempotency_key, body_sha256, title, template, submitted, files, created_utc_ms,
        group_id, index, size, state, finished_utc_ms, life,
    ) = row  # fmt: skip
    group = Member(group_id=group_id, index=index, size=size) if group_id is not None else None
    return _record(
        job_id, sequence, sys.intern(owner), idempotency_key, body_sha256, title, sys.intern(template),
        *_read_submitted(submitted), _read_files(files), created_utc_ms, group, _STATES[state], finished_utc_ms,
        *_read_life(life),
    )  # fmt: skip


@functools.lru_cache(maxsize=1_024)
def _read_submitted(text: str) -> tuple[Any, ...]:
    """Here and below: the same objects for the same text, so that jobs that are alike share what they hold."""
    fields = _read(text)
    return tuple([fields[name] for name in _SUBMITTED])


@functools.lru_cache(maxsize=1_024)
def _read_life(text: str) -> tuple[Any, ...]:
    fields = _read(text)
    if unknown := fields.keys() - set(_LIFE):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return tuple([fields.get(name, _DEFAULTS[name]) for name in _LIFE])


@functools.lru_cache(maxsize=1_024)
def _read_files(text: str) -> tuple[InputFile, ...]:
    files: tuple[InputFile, ...] = _FILES[1](json.loads(text), "files")
    return files


def _read(text: str) -> Mapping[str, Any]:
    fields: dict[str, Any] = json.loads(text)
    for name in _CONVERTERS.keys() & fields.keys():
        fields[name] = _CONVERTERS[name][1](fields[name], name)
    return fields


def story_row(line: StoryLine) -> tuple[Any, ...]:
    decision = _encode(_DECISION[0](line.decision)) if line.decision is not None else ""
    return line.utc_ms, line.what, line.attempt, line.worker, line.text, decision


def story_line(row: Sequence[Any]) -> StoryLine:
    """The line of a row. Raises ValueError or RemoteProtocolError for one that story_row never made."""
    utc_ms, what, attempt, worker, text, decision = row
    found = _DECISION[1](json.loads(decision), "decision") if decision else None
    return StoryLine(utc_ms=utc_ms, what=what, attempt=attempt, worker=worker, text=text, decision=found)
