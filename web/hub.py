"""The fan-out, without its sockets: what the fleet looks like now, and which bytes a browser gets for what changed.

Pure. web/feed.py feeds it the broker's events, web/ws.py carries the frames away. All browsers of one scope (an owner,
or everything) share one numbered feed, so an event is encoded once for all of them. How many jobs are remembered is
bounded; a job that was forgotten comes back with its next change.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, Final

from broker.protocol.client import SnapshotReply
from broker.protocol.events import (
    JobChanged,
    JobGone,
    JobPreview,
    JobProgress,
    Outlook,
    StatsChanged,
    WorkerChanged,
    WorkerGone,
)
from broker.protocol.records import Expected, JobState, JobView, Output, WorkerState, WorkerView
from web import views_json
from web.frames import Opcode, encode
from web.history import History
from web.mailbox import SNAPSHOT, Frame
from web.viewer import may_see
from web.views_json import Json

Event = JobChanged | JobGone | JobProgress | JobPreview | WorkerChanged | WorkerGone | StatsChanged | Outlook
Scope = str | None

#: How many ended and how many waiting jobs are remembered; the others live in the broker and are asked for.
MAX_ENDED: Final = 200
MAX_QUEUED: Final = 800
#: Kinds of workers that are remembered when none is there.
MAX_GONE: Final = 8
TICK: Final = Frame(None, "tick", encode(Opcode.TEXT, b'{"type":"tick"}'))


@dataclasses.dataclass(slots=True)
class Changes:
    """What a batch of events means for those who watch."""

    #: Frames for the browsers of each scope, in order.
    frames: dict[Scope, list[Frame]] = dataclasses.field(default_factory=dict)
    #: Jobs that look different now.
    jobs: set[str] = dataclasses.field(default_factory=set)
    #: First results, of which somebody who watches is about to ask for the file.
    results: list[Output] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class _Channel:
    """The feed of one scope."""

    watchers: int = 0
    #: Of the last event.
    serial: int = 0
    #: The encoded snapshot as of `serial`, kept while nothing changes: a hundred reconnecting browsers cost one.
    snapshot: Frame | None = None


class Hub:
    def __init__(self) -> None:
        #: Job views by id, in three dicts so that forgetting the oldest costs nothing: the last changed stands last.
        self._queued: dict[str, Json] = {}
        self._active: dict[str, Json] = {}
        self._ended: dict[str, Json] = {}
        self._workers: dict[str, Json] = {}
        #: Worker -> digest of what it can do, for those that can be given work.
        self._abilities: dict[str, str] = {}
        #: Digests of what those could do that are gone, or whose ComfyUI has not answered since; the last one last.
        self._gone: dict[str, None] = {}
        self._stats = views_json.NO_STATS
        #: The first waiting jobs, in the order in which they are likely to be served.
        self._outlook: tuple[Expected, ...] = ()
        #: Whether the broker answers.
        self.connected = False
        self.history = History()
        self._channels: dict[Scope, _Channel] = {}

    # ---- what it looks like now

    def job(self, job_id: str) -> Json | None:
        for group in (self._queued, self._active, self._ended):
            if job_id in group:
                return group[job_id]
        return None

    def workers(self, scope: Scope) -> list[Json]:
        return [self._worker_for(scope, worker) for worker in self._workers.values()]

    def abilities(self) -> frozenset[str]:
        """Digests of what the workers that are there can do; while none is, of what the last ones could that were seen:
        a job that waits for their return should be one for them."""
        return frozenset(self._abilities.values() or self._gone)

    def snapshot(self, scope: Scope) -> Json:
        """What a page of this scope begins with; jobs newest first."""
        groups = (self._queued, self._active, self._ended)
        jobs = [job for group in groups for job in group.values() if may_see(scope, job["owner"])]
        jobs.sort(key=lambda job: (job["created_ms"], job["id"]), reverse=True)
        return {
            "type": "snapshot",
            "serial": self._channels[scope].serial if scope in self._channels else 0,
            "jobs": jobs,
            "workers": self.workers(scope),
            "stats": self._stats,
            "outlook": self._outlook_for(scope),
            "connected": self.connected,
        }

    def sample(self, at_ms: int) -> None:
        """Remember what the workers do now; while the broker is away nobody knows, and a gap tells of that."""
        if self.connected:
            self.history.sample(self._workers.values(), at_ms)

    # ---- who watches

    def join(self, scope: Scope) -> Frame:
        """One more browser; it must be sent this frame first."""
        self._channels.setdefault(scope, _Channel()).watchers += 1
        return self.resync(scope)

    def leave(self, scope: Scope) -> None:
        channel = self._channels[scope]
        channel.watchers -= 1
        if channel.watchers == 0:
            del self._channels[scope]

    def resync(self, scope: Scope) -> Frame:
        """The frame that brings a browser of a watched scope up to date, whatever it missed."""
        channel = self._channels[scope]
        if channel.snapshot is None:
            body = views_json.packed(self.snapshot(scope))
            channel.snapshot = Frame(channel.serial, SNAPSHOT, encode(Opcode.TEXT, body))
        return channel.snapshot

    # ---- what changed

    def reset(self, reply: SnapshotReply) -> Changes:
        """Start afresh from the broker's word: every browser gets a snapshot."""
        before = {**self._queued, **self._active, **self._ended}
        for group in (self._queued, self._active, self._ended, self._workers):
            group.clear()
        for name in list(self._abilities):
            self._leaves(name)
        for job in sorted(reply.jobs, key=lambda job: job.created_utc_ms):
            self._remember(job)
        for worker in reply.workers:
            self._meet(worker)
        self._stats = views_json.fleet(reply.stats)
        self._outlook = reply.outlook
        self.connected = True
        changes = Changes(jobs={*before, *(job.job_id for job in reply.jobs)})
        for scope, channel in self._channels.items():
            channel.serial += 1
            channel.snapshot = None
            changes.frames[scope] = [self.resync(scope)]
        return changes

    def lost(self) -> Changes:
        """The broker does not answer: what is shown may be old."""
        changes = Changes()
        if self.connected:
            self.connected = False
            self._tell_all(changes, {"type": "fleet", "connected": False})
        return changes

    def found(self) -> Changes:
        """The broker answers again, and nothing was missed."""
        changes = Changes()
        if not self.connected:
            self.connected = True
            self._tell_all(changes, {"type": "fleet", "connected": True})
        return changes

    def apply(self, events: Iterable[Event]) -> Changes:
        """Take over what the broker published, in its order."""
        changes = Changes()
        for event in events:
            match event:
                case JobChanged():
                    self._job_changed(event.job, changes)
                case JobGone():
                    self._job_gone(event, changes)
                case JobProgress():
                    self._progress(event, changes)
                case JobPreview():
                    self._preview(event, changes)
                case WorkerChanged():
                    self._tell_of_worker(changes, self._meet(event.worker))
                case WorkerGone():
                    self._workers.pop(event.worker, None)
                    self._leaves(event.worker)
                    self._tell_all(changes, {"type": "worker_gone", "name": event.worker})
                case Outlook(queue=queue):
                    self._outlook = queue
                    self._tell_of_outlook(changes)
                case StatsChanged():
                    self._stats = views_json.fleet(event.stats)
                    self._tell_all(changes, {"type": "stats", "stats": self._stats}, key="stats")
        return changes

    def _job_changed(self, job: JobView, changes: Changes) -> None:
        forgotten = self.job(job.job_id) is None
        view = self._remember(job)
        changes.jobs.add(job.job_id)
        if job.state is JobState.SUCCEEDED and any(may_see(scope, job.owner) for scope in self._channels):
            changes.results += job.outputs[:1]
        self._tell_owner(changes, job.owner, {"type": "job", "job": view})
        worker = self._workers.get(job.worker) if forgotten else None
        if worker is not None and any(held["job_id"] == job.job_id for held in worker["held"]):
            self._tell_of_worker(changes, worker)  # whose it is was not known when that came

    def _job_gone(self, event: JobGone, changes: Changes) -> None:
        for group in (self._queued, self._active, self._ended):
            group.pop(event.job_id, None)
        self._tell_owner(changes, event.owner, {"type": "job_gone", "id": event.job_id})

    def _progress(self, event: JobProgress, changes: Changes) -> None:
        view = self._active.get(event.job_id)
        if view is None or view["attempt"] != event.attempt:
            return
        progress = views_json.progress(event.progress)
        self._active[event.job_id] = {**view, "progress": progress}
        changes.jobs.add(event.job_id)
        told = {"type": "progress", "id": event.job_id, "attempt": event.attempt, "progress": progress}
        self._tell_owner(changes, view["owner"], told, key=f"progress {event.job_id}")

    def _preview(self, event: JobPreview, changes: Changes) -> None:
        view = self._active.get(event.job_id)
        if view is None or view["attempt"] != event.attempt:
            return
        head = json.dumps({"id": event.job_id, "attempt": event.attempt, "media_type": event.media_type}).encode()
        data = encode(Opcode.BINARY, len(head).to_bytes(2, "big") + head + event.image)
        frame = Frame(None, f"preview {event.job_id}", data)
        for scope in self._channels:
            if may_see(scope, view["owner"]):
                changes.frames.setdefault(scope, []).append(frame)

    def _remember(self, job: JobView) -> Json:
        for group in (self._queued, self._active, self._ended):
            group.pop(job.job_id, None)
        view = views_json.job(job)
        group, most = self._active, None
        if job.state.terminal:
            group, most = self._ended, MAX_ENDED
        elif job.state is JobState.QUEUED:
            group, most = self._queued, MAX_QUEUED
        group[job.job_id] = view
        if most is not None and len(group) > most:
            del group[next(iter(group))]
            for channel in self._channels.values():
                channel.snapshot = None
        return view

    def _meet(self, worker: WorkerView) -> Json:
        self._workers[worker.worker] = view = views_json.worker(worker)
        if worker.state in (WorkerState.LOST, WorkerState.LEFT) or worker.capabilities is None:
            self._leaves(worker.worker, worker.capabilities)
        else:
            self._abilities[worker.worker] = worker.capabilities
        return view

    def _leaves(self, name: str, told: str | None = None) -> None:
        """It can be given no work. told: what it says it can do."""
        digest = self._abilities.pop(name, told)
        if digest is not None:
            self._gone.pop(digest, None)
            self._gone[digest] = None
            if len(self._gone) > MAX_GONE:
                del self._gone[next(iter(self._gone))]

    # ---- telling

    def _tell_all(self, changes: Changes, told: Json, key: str = "") -> None:
        body = _body(told)
        for scope, channel in self._channels.items():
            self._append(changes, scope, channel, key, body)

    def _tell_owner(self, changes: Changes, owner: str, told: Json, key: str = "") -> None:
        body: bytes | None = None
        for scope, channel in self._channels.items():
            if may_see(scope, owner):
                body = body if body is not None else _body(told)
                self._append(changes, scope, channel, key, body)

    def _tell_of_worker(self, changes: Changes, worker: Json) -> None:
        whole = _body({"type": "worker", "worker": worker})
        for scope, channel in self._channels.items():
            shown = self._worker_for(scope, worker)
            body = whole if shown is worker else _body({"type": "worker", "worker": shown})
            self._append(changes, scope, channel, f"worker {worker['name']}", body)

    def _tell_of_outlook(self, changes: Changes) -> None:
        for scope, channel in self._channels.items():
            body = _body({"type": "outlook", "queue": self._outlook_for(scope)})
            self._append(changes, scope, channel, "outlook", body)

    def _outlook_for(self, scope: Scope) -> list[Json]:
        """Places are those in the whole queue, whoever looks."""
        return [views_json.expected(one) for one in self._outlook if may_see(scope, one.owner)]

    def _append(self, changes: Changes, scope: Scope, channel: _Channel, key: str, body: bytes) -> None:
        channel.serial += 1
        channel.snapshot = None
        data = encode(Opcode.TEXT, b'{"serial":%d,%s' % (channel.serial, body))
        changes.frames.setdefault(scope, []).append(Frame(channel.serial, key, data))

    def _worker_for(self, scope: Scope, worker: Json) -> Json:
        """A worker without the jobs that this scope may not know of."""
        if scope is None or not worker["held"]:
            return worker
        return {**worker, "held": [held for held in worker["held"] if self._shows(scope, held["job_id"])]}

    def _shows(self, scope: Scope, job_id: str) -> bool:
        job = self.job(job_id)
        return job is not None and may_see(scope, job["owner"])


def _body(told: dict[str, Any]) -> bytes:
    """A JSON object without its opening brace: the serial of each feed goes before it."""
    return views_json.packed(told)[1:]
