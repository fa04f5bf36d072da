"""A job's record as a row: columns for what is searched by, JSON for what was submitted, JSON for its life since. Pure.

JSON, because an operator can read it with the sqlite3 shell and a migration can mend it in SQL. A new field of
JobRecord with a default needs no migration; a new field of a record inside it (Needs, Output, …) does.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, get_type_hints

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
from broker.store.rules import SUBMITTED

#: In the order of the row.
COLUMNS: Final = (
    "sequence",
    "job_id",
    "owner",
    "idempotency_key",
    "created_utc_ms",
    "template",
    "group_id",
    "submitted",
    "state",
    "life",
    "finished_utc_ms",
)

_CONVERTERS: Final = {
    "labels": converter(Labels),
    "needs": converter(Needs),
    "files": converter(Annotated[tuple[InputFile, ...], Many(256)]),
    "group": converter(Member | None),
    "failure": converter(Failure | None),
    "timings": converter(Timings | None),
    "why": converter(Why | None),
    "outputs": converter(Annotated[tuple[Output, ...], Many(1_000)]),
}
_DECISION: Final = converter(Decision)
_SUBMITTED: Final = tuple(name for name in SUBMITTED if name not in COLUMNS)
_LIFE: Final = tuple(name for name in get_type_hints(JobRecord) if name not in (*SUBMITTED, *COLUMNS))
_lived: Final[Callable[[JobRecord], tuple[Any, ...]]] = attrgetter(*_LIFE)
#: Where in the JSON of what was submitted begins what many jobs have alike: what they need, and mostly no files. A text
#: in it cannot look so, as its quotes are escaped.
_NEEDS: Final = ',"needs":'
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_row(record: JobRecord) -> tuple[Any, ...]:
    return (
        record.sequence,
        record.job_id,
        record.owner,
        record.idempotency_key,
        record.created_utc_ms,
        record.template,
        record.group.group_id if record.group is not None else None,
        _write(record, _SUBMITTED),
        record.state.value,
        life_of(record),
        record.finished_utc_ms,
    )


def life_of(record: JobRecord) -> str:
    return _life(_lived(record))


@functools.lru_cache(maxsize=256)
def _life(values: tuple[Any, ...]) -> str:
    """The same for every job that has just come, and for many that wait."""
    return _written(dict(zip(_LIFE, values, strict=True)))


def _write(record: JobRecord, names: Sequence[str]) -> str:
    return _written({name: getattr(record, name) for name in names})


def _written(values: dict[str, Any]) -> str:
    for name in _CONVERTERS.keys() & values.keys():
        values[name] = _CONVERTERS[name][0](values[name])
    return _encode(values)


def from_row(row: Sequence[Any]) -> JobRecord:
    """The record of a row. Raises ValueError, TypeError or RemoteProtocolError for one that to_row never made."""
    sequence, job_id, owner, idempotency_key, created_utc_ms, template, _, submitted, state, life, finished_utc_ms = row
    own, needs, rest = submitted.partition(_NEEDS)
    alike = _read(f"{{{_NEEDS[1:]}{rest}") if needs else {}
    fields = _read.__wrapped__(own + "}" if needs else own) | alike | _read(life)
    return JobRecord(
        sequence=sequence,
        job_id=job_id,
        owner=owner,
        idempotency_key=idempotency_key,
        created_utc_ms=created_utc_ms,
        template=template,
        state=JobState(state),
        finished_utc_ms=finished_utc_ms,
        **fields,
    )


@functools.lru_cache(maxsize=1_024)
def _read(text: str) -> dict[str, Any]:
    """Fields of a record; the same object for the same text, so that jobs that are alike share what they hold."""
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
