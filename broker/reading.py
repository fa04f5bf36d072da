"""Answers the requests that change nothing, from what the core knows live and the store knows for good.

Never writes and never decides. Called by turn.py between the core's own events, so it sees a consistent state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from broker.core import load
from broker.core.fleet import Fleet
from broker.core.model import JobRecord
from broker.core.rules import Now
from broker.protocol import client
from broker.protocol.codec import MAX_HEADER_BYTES, MAX_REPLY_BYTES, encode
from broker.protocol.records import JobView, WorkerView
from broker.protocol.story import StoryLine
from broker.store.api import Page, Store, Wanted

#: The most live jobs a snapshot carries; further ones are reached by pages.
SNAPSHOT_LIVE: Final = 800
#: What jobs or lines may take of a reply's header.
REPLY_BYTES: Final = MAX_HEADER_BYTES - 4_096
#: What workers may take beside them: all there can be, at a usual size. One left out is told of at its next heartbeat.
WORKERS_BYTES: Final = MAX_REPLY_BYTES - MAX_HEADER_BYTES - 65_536

Item = TypeVar("Item", JobView, StoryLine, WorkerView)


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What an answer may look at."""

    fleet: Fleet
    store: Store
    now: Now

    def record(self, job_id: str) -> JobRecord | None:
        job = self.fleet.jobs.live.get(job_id)
        return self.store.job(job_id) if job is None else job.record

    def snapshot_jobs(self, recent: int) -> tuple[JobView, ...]:
        """Jobs that workers hold and the newest ones, newest first."""
        chosen = {job.record.job_id: job.record for job in self.fleet.leases.held()}
        newest = self.store.page(Wanted(), after="", limit=recent).jobs if recent else ()
        chosen |= {record.job_id: record for record in newest if record.job_id not in chosen}
        ordered = sorted(chosen.values(), key=lambda record: -record.sequence)[: SNAPSHOT_LIVE + recent]
        return tuple(self.fleet.job_view(record) for record in ordered)

    def workers(self) -> tuple[WorkerView, ...]:
        return _fitting(self.fleet.workers(), WORKERS_BYTES, _of_worker)


def answer(reading: Reading, said: Any) -> Any:
    """The one reply to one reading request."""
    return HANDLERS[type(said)](reading, said)


def _get(reading: Reading, said: client.Get) -> Any:
    record = reading.record(said.job_id)
    if record is None:
        return _no_job(said)
    return client.JobReply(
        request_id=said.request_id,
        job=reading.fleet.job_view(record),
        existed=True,
        workflow=reading.store.workflow(said.job_id) if said.full else b"",
        form=reading.store.form(said.job_id) if said.full else b"",
    )


def wanted_by(said: client.List) -> Wanted:
    return Wanted(
        owner=said.owner,
        states=said.states,
        template=said.template,
        label=said.label,
        group=said.group,
        since_utc_ms=said.since_utc_ms,
        until_utc_ms=said.until_utc_ms,
        text=said.text,
    )


def _list(reading: Reading, said: client.List) -> Any:
    try:
        page = reading.store.page(wanted_by(said), after=said.after, limit=said.limit)
    except ValueError:
        return listed(reading, said, None)
    return listed(reading, said, page)


def listed(reading: Reading, said: client.List, page: Page | None) -> Any:
    """The reply with this page, or with as much of it as fits; None: the request's key leads nowhere."""
    if page is None:
        text = f"after={said.after!r} is not a page key this broker gave: start again without it"
        return client.Error(request_id=said.request_id, code="invalid", text=text, retry_after_ms=0)
    jobs = _fitting((reading.fleet.job_view(record) for record in page.jobs), REPLY_BYTES, _of_job)
    left_out = len(jobs) < len(page.jobs)
    following = str(page.jobs[len(jobs) - 1].sequence) if left_out else page.next
    return client.JobsReply(request_id=said.request_id, jobs=jobs, next=following)


def _workers(reading: Reading, said: client.Workers) -> Any:
    return client.WorkersReply(request_id=said.request_id, workers=reading.workers())


def _snapshot(reading: Reading, said: client.Snapshot) -> Any:
    return client.SnapshotReply(
        request_id=said.request_id,
        stream=reading.fleet.stream,
        serial=reading.fleet.serial,
        workers=reading.workers(),
        jobs=_fitting(reading.snapshot_jobs(said.recent), REPLY_BYTES, _of_job),
        stats=reading.fleet.stats(reading.now),
        outlook=reading.fleet.outlook,
    )


def _load(reading: Reading, said: client.Load) -> Any:
    jobs, held = reading.fleet.jobs, tuple(reading.fleet.leases.held())
    return client.LoadReply(
        request_id=said.request_id,
        owners=load.owners(jobs, held, said.owner),
        models=load.models(jobs, held, said.owner),
        paused=reading.fleet.roster.fleet_paused,
    )


def _statistics(reading: Reading, said: client.Statistics) -> Any:
    return client.StatisticsReply(request_id=said.request_id, stats=reading.fleet.stats(reading.now))


def _story(reading: Reading, said: client.Story) -> Any:
    if reading.record(said.job_id) is None:
        return _no_job(said)
    lines = reading.store.story(said.job_id)
    newest = _fitting(reversed(lines), REPLY_BYTES, lambda line: client.StoryReply(request_id="", lines=(line,)))
    return client.StoryReply(request_id=said.request_id, lines=newest[::-1])


def _of_job(job: JobView) -> client.JobsReply:
    return client.JobsReply(request_id="", jobs=(job,), next="")


def _of_worker(worker: WorkerView) -> client.WorkersReply:
    return client.WorkersReply(request_id="", workers=(worker,))


def _fitting(items: Iterable[Item], room_bytes: int, carrying: Callable[[Item], Any]) -> tuple[Item, ...]:
    """The first items, at least one, that have room. carrying: a message with nothing but the item."""
    fitting: list[Item] = []
    for item in items:
        room_bytes -= len(encode(carrying(item))[2])
        if room_bytes < 0 and fitting:
            break
        fitting.append(item)
    return tuple(fitting)


def _no_job(said: Any) -> client.Error:
    text = f"no job has the id {said.job_id}: check it, or list the jobs"
    return client.Error(request_id=said.request_id, code="not_found", text=text, retry_after_ms=0)


HANDLERS: Final[dict[type[Any], Callable[[Reading, Any], Any]]] = {
    client.Get: _get,
    client.List: _list,
    client.Workers: _workers,
    client.Snapshot: _snapshot,
    client.Statistics: _statistics,
    client.Story: _story,
    client.Load: _load,
}
