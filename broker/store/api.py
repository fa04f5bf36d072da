"""What the broker asks of a durable store; memory.py and sqlite.py both pass one contract suite.

One writer, one thread. Writes gather in the open transaction, reads see them, `commit` makes them durable at once or
raises StoreError, after which the store must not be used again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

from broker.core.estimates import Figure
from broker.core.model import JobRecord
from broker.core.step import Write
from broker.protocol.records import JobState
from broker.protocol.story import StoryLine


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Jobs newest first, and the key of the next page (empty: this was the last)."""

    jobs: tuple[JobRecord, ...]
    next: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs a page is of: all of this together. What is empty or None matches every job.

    The times are of submission; a store may take them to have grown from job to job, as a clock that is left alone has.
    """

    owner: str = ""
    states: Sequence[JobState] = ()
    template: str = ""
    label: str = ""
    group: str = ""
    since_utc_ms: int | None = None
    until_utc_ms: int | None = None
    #: What somebody searches for: words.phrases of it, all of them, in title and text.
    text: str = ""


class Store(Protocol):
    def apply(self, write: Write) -> None:
        """Add one write to the open transaction."""

    def commit(self) -> None:
        """Make every write since the last commit durable, or raise StoreError."""

    def checkpoint(self) -> None:
        """Tidy up between two groups, when there is nothing else to do."""

    def close(self) -> None:
        """Release files and locks; uncommitted writes are forgotten."""

    def job(self, job_id: str) -> JobRecord | None: ...

    def job_by_key(self, owner: str, idempotency_key: str) -> JobRecord | None: ...

    def job_in_group(self, group_id: str) -> JobRecord | None:
        """The oldest job of this group."""

    def is_deleted(self, job_id: str) -> bool:
        """Whether a job had this id and was deleted; the last rules.DELETED_KEPT are remembered."""

    def deleted_by_key(self, owner: str, idempotency_key: str) -> str:
        """The id of the deleted job that had this key, as far as it is remembered; "" when there is none."""

    def workflow(self, job_id: str) -> bytes:
        """The workflow as submitted. Raises KeyError when there is no such job."""

    def form(self, job_id: str) -> bytes: ...

    def live(self) -> Iterator[JobRecord]:
        """Every job in no terminal state, oldest first."""

    def page(self, wanted: Wanted, *, after: str, limit: int) -> Page:
        """Jobs newest first. May be short before the last page where many jobs had to be looked at.

        Raises ValueError for an `after` this store never gave.
        """

    def ended(self, *, before_utc_ms: int | None, limit: int) -> tuple[JobRecord, ...]:
        """Jobs that are over, the one that ended first first. before_utc_ms: only what ended earlier; None: any."""

    def names(self, sha256: str) -> bool:
        """Whether any job, live or over, has this file among its inputs or outputs. Cheap: kept, not looked for."""

    def story(self, job_id: str) -> tuple[StoryLine, ...]:
        """What happened to a job, oldest first, at most the last 1000 lines."""

    def figures(self) -> Iterator[Figure]:
        """What was learnt."""

    def counts(self) -> dict[JobState, int]:
        """Jobs per state; a state without jobs may be absent. Cheap: kept, not counted."""

    def notes(self) -> dict[str, str]:
        """Everything remembered about the fleet itself."""

    def last_sequence(self) -> int:
        """The highest sequence ever given; 0 in an empty store."""
