"""What both stores hold to, so that neither drifts: bounds, the pages' keys, what an update may not change. Pure.

A write that contradicts what is stored means that the core and its store disagree: StoreError, and the store is closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from broker.core.model import JobRecord
from broker.protocol.errors import StoreError
from broker.store.api import Page, Wanted

#: Lines of a job's story that are kept; the oldest go first.
STORY_LINES: Final = 1_000
#: Deleted jobs whose ids and keys are remembered, so that none of them is run again; the oldest are forgotten first.
DELETED_KEPT: Final = 1_000_000
#: Learnt figures that outlive a restart of the broker: those learnt last.
FIGURES: Final = 20_000
#: What was submitted: fields of a record that are the same for life.
SUBMITTED: Final = (
    "sequence",
    "job_id",
    "owner",
    "idempotency_key",
    "created_utc_ms",
    "labels",
    "body_sha256",
    "title",
    "template",
    "needs",
    "files",
    "group",
)

_AFTER: Final = re.compile(r"[1-9][0-9]{0,18}")


submitted: Final[Callable[[JobRecord], tuple[Any, ...]]] = attrgetter(*SUBMITTED)


def named(record: JobRecord) -> frozenset[str]:
    """The sha256 of every file that this job needs or made."""
    return frozenset({file.sha256 for file in record.files} | {output.sha256 for output in record.outputs})


def taken(record: JobRecord) -> StoreError:
    return StoreError(f"job {record.job_id}: its id, its sequence {record.sequence} or its key is stored already")


def changed(record: JobRecord) -> StoreError:
    return StoreError(f"job {record.job_id}: an update may not change what was submitted: {', '.join(SUBMITTED)}")


def live(record: JobRecord) -> StoreError:
    return StoreError(f"job {record.job_id} is {record.state}: only a job that is over may be deleted")


def unknown(job_id: str) -> StoreError:
    return StoreError(f"a write for job {job_id}, which is not stored")


def wants(wanted: Wanted, record: JobRecord) -> bool:
    """Whether a job is one of those wanted."""
    created, group = record.created_utc_ms, record.group
    return (
        wanted.owner in ("", record.owner)
        and (not wanted.states or record.state in wanted.states)
        and wanted.template in ("", record.template)
        and (not wanted.label or wanted.label in record.labels)
        and (not wanted.group or (group is not None and group.group_id == wanted.group))
        and (wanted.since_utc_ms is None or created >= wanted.since_utc_ms)
        and (wanted.until_utc_ms is None or created < wanted.until_utc_ms)
    )


def before(after: str, last_sequence: int) -> int:
    """The sequence below which a page begins. Raises ValueError for a key that no page gave."""
    if not after:
        return last_sequence + 1
    if _AFTER.fullmatch(after) is None or int(after) > last_sequence:
        raise ValueError(f"no page ends at {after[:64]!r}: pass `next` of the page before, unchanged")
    return int(after)


def page_of(found: list[JobRecord], limit: int) -> Page:
    """A page of at most `limit`. found: newest first, one more than the limit if there are more."""
    jobs = tuple(found[:limit])
    return Page(jobs, str(jobs[-1].sequence) if len(found) > limit else "")
