"""A job's record as a row: columns for what is searched by and what is each job's own, JSON for what has parts and is
alike in many. Pure.

JSON, because an operator can read it with the sqlite3 shell and a migration can mend it in SQL. What is alike is read
once for all jobs that have it alike, as a start reads every job that waits; of a job's life stands there what has
happened. A new field of JobRecord with a default needs no migration; a new field of a record inside it (Needs, Output,
…) does.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import typing
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, TypeVar

from broker.core.model import NAMES_KEPT, JobRecord
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
from broker.store.rules import SUBMITTED

#: With more characters what stands in a row is not kept for others that are alike.
ALIKE_CHARS: Final = 8_192

T = TypeVar("T")

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
#: What happens to a job: the record's last fields, each with what it is while nothing has.
_LIFE: Final = {
    field.name: field.default for field in dataclasses.fields(JobRecord) if field.name not in (*SUBMITTED, *COLUMNS)
}
#: The types of those that have no parts.
_PLAIN: Final = {
    name: typing.get_args(hint) or (hint,)
    for name, hint in typing.get_type_hints(JobRecord).items()
    if name in _LIFE and name not in _CONVERTERS
}
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
        (_write_submitted if _is_usual(record.needs) else _write_submitted.__wrapped__)(record.labels, record.needs),
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
    # What one job alone has may be megabytes, and would be kept in vain.
    own = record.outputs or record.failure is not None
    return (_write_life.__wrapped__ if own else _write_life)(_lived(record))


@functools.lru_cache(maxsize=1_024)
def _write_life(values: tuple[Any, ...]) -> str:
    """Here and below: the same for every job that has just come, and for many that wait."""
    return _write({name: value for name, value in zip(_LIFE, values, strict=True) if value != _LIFE[name]})


@functools.lru_cache(maxsize=1_024)
def _write_submitted(labels: tuple[str, ...], needs: Needs) -> str:
    return _write({"labels": labels, "needs": needs})


def _write(fields: dict[str, Any]) -> str:
    for name in _CONVERTERS.keys() & fields.keys():
        fields[name] = _CONVERTERS[name][0](fields[name])
    return _encode(fields)


def from_row(row: Sequence[Any]) -> JobRecord:
    """The record of a row. Raises ValueError, TypeError, KeyError or RemoteProtocolError for one that to_row never
    made.

    That a column holds its own type is SQLite's to see to: the table is STRICT, and is checked whole when it is opened.
    """
    (
        sequence, job_id, owner, idempotency_key, body_sha256, title, template, submitted, files, created_utc_ms,
        group_id, index, size, state, finished_utc_ms, life,
    ) = row  # fmt: skip
    if group_id is not None and (index is None or size is None):
        raise ValueError("its place in its group is missing")
    group = Member(group_id=group_id, index=index, size=size) if group_id is not None else None
    return _record(
        job_id, sequence, sys.intern(owner), idempotency_key, body_sha256, title, sys.intern(template),
        *_once(_read_submitted, submitted), _once(_read_files, files), created_utc_ms, group, _STATES[state],
        finished_utc_ms, *_once(_read_life, life),
    )  # fmt: skip


def _once(read: functools._lru_cache_wrapper[T], text: str) -> T:
    """What stands in a text, read once for all that have it alike; a long one, anew: a few would fill the memory."""
    return (read if len(text) <= ALIKE_CHARS else read.__wrapped__)(text)


def _is_usual(needs: Needs) -> bool:
    return len(needs.nodes) + len(needs.models) <= NAMES_KEPT


@functools.lru_cache(maxsize=1_024)
def _read_submitted(text: str) -> tuple[Any, ...]:
    """Here and below: the same objects for the same text, so that jobs that are alike share what they hold."""
    fields = _read(text)
    return fields["labels"], fields["needs"]


@functools.lru_cache(maxsize=1_024)
def _read_life(text: str) -> tuple[Any, ...]:
    fields = _read(text)
    if unknown := fields.keys() - _LIFE.keys():
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    for name in _PLAIN.keys() & fields.keys():
        if type(fields[name]) not in _PLAIN[name]:
            wanted = " or ".join(kind.__name__ for kind in _PLAIN[name])
            raise ValueError(f"{name}: want {wanted}, got {type(fields[name]).__name__}")
    return tuple((_LIFE | fields).values())


@functools.lru_cache(maxsize=1_024)
def _read_files(text: str) -> tuple[InputFile, ...]:
    files: tuple[InputFile, ...] = _FILES[1](json.loads(text), "files")
    return files


def _read(text: str) -> dict[str, Any]:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"want a map, got a {type(fields).__name__}")
    for name in _CONVERTERS.keys() & fields.keys():
        fields[name] = _CONVERTERS[name][1](fields[name], name)
    return fields


def story_row(line: StoryLine) -> tuple[Any, ...]:
    decision = _encode(_DECISION[0](line.decision)) if line.decision is not None else ""
    return line.utc_ms, line.what, line.attempt, line.worker, line.text, decision, line.burnt


def story_line(row: Sequence[Any]) -> StoryLine:
    """The line of a row. Raises ValueError or RemoteProtocolError for one that story_row never made."""
    utc_ms, what, attempt, worker, text, decision, burnt = row
    found = _DECISION[1](json.loads(decision), "decision") if decision else None
    return StoryLine(utc_ms=utc_ms, what=what, attempt=attempt, burnt=burnt, worker=worker, text=text, decision=found)
