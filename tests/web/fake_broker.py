"""A broker for the tests of web: real sockets and the real contract, state that a test can see and set, no decisions.

Runs in greenlets of the test's own process. `silent` makes it hear and not answer; `close` takes it away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import zmq

from broker.core import submits
from broker.protocol import client, codec, events, files, records, story
from broker.protocol.errors import ConfigError
from broker.protocol.records import JobState, JobView, WorkerState, WorkerView
from broker.runtime import sockets
from broker.runtime.settings import Network

CREATED_MS = 1_700_000_000_000
TOPICS: dict[type[Any], bytes] = {
    events.JobChanged: events.TOPIC_JOB,
    events.JobGone: events.TOPIC_JOB,
    events.JobProgress: events.TOPIC_PROGRESS,
    events.JobPreview: events.TOPIC_PREVIEW,
    events.WorkerChanged: events.TOPIC_WORKER,
    events.WorkerGone: events.TOPIC_WORKER,
    events.StatsChanged: events.TOPIC_STATS,
    events.Outlook: events.TOPIC_STATS,
}
DECISION = story.Decision(
    policy="finish_time",
    why=records.Why.WAITED_FOR_MODELS,
    worker="gpu-2",
    waited_ms=4_000,
    waited_for="gpu-2",
    instead="gpu-1",
    candidates=(
        story.Considered(worker="gpu-2", wait_ms=0, load_ms=0, run_ms=5_000, missing_models=()),
        story.Considered(worker="gpu-1", wait_ms=0, load_ms=11_000, run_ms=5_000, missing_models=("checkpoints/xl",)),
    ),
)


def a_job(**changes: Any) -> JobView:
    whole: dict[str, Any] = {
        "job_id": str(uuid.uuid4()),
        "owner": "local",
        "state": JobState.QUEUED,
        "title": "a lighthouse",
        "template": "text-to-image",
        "labels": (),
        "group": None,
        "priority": 0,
        "created_utc_ms": CREATED_MS,
        "started_utc_ms": None,
        "finished_utc_ms": None,
        "attempt": 0,
        "burnt": 0,
        "worker": "",
        "prompt_id": "",
        "phase": None,
        "progress": None,
        "failure": None,
        "timings": None,
        "outputs": (),
        "why": None,
        "expect_ms": None,
        "deadline_utc_ms": None,
        "pin": "",
    }
    return JobView(**{**whole, **changes})


def a_worker(name: str = "worker-1", **changes: Any) -> WorkerView:
    whole: dict[str, Any] = {
        "worker": name,
        "session": secrets.token_hex(16),
        "state": WorkerState.READY,
        "paused": False,
        "simulated": True,
        "version": "0.1.0",
        "comfyui_version": "0.3.64",
        "capabilities": hashlib.sha256(name.encode()).hexdigest(),
        "gpu": records.Gpu(name="card", kind="cuda", vram_total_bytes=24 << 30),
        "stats": None,
        "labels": (),
        "breaker": records.Breaker(state=records.BreakerState.CLOSED, why="", since_utc_ms=0),
        "restartable": False,
        "contested": False,
        "held": (),
        "succeeded": 0,
        "failed": 0,
        "since_utc_ms": CREATED_MS,
        "resident": (),
        "jobs_per_hour": 0,
        "speed": 1.0,
        "load_ms": None,
    }
    return WorkerView(**{**whole, **changes})


def a_progress(value: int = 1, most: int = 20) -> records.Progress:
    kind = records.ProgressKind.STEP
    return records.Progress(
        kind=kind, node_id="3", node_type="KSampler", value=value, most=most, fraction=value / most, text=""
    )


def an_output(data: bytes, **changes: Any) -> records.Output:
    whole: dict[str, Any] = {
        "node_id": "9",
        "name": "picture_00001_.png",
        "kind": "output",
        "media_type": "image/png",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
    }
    return records.Output(**{**whole, **changes})


def a_failure(text: str = "it broke") -> records.Failure:
    reason = records.Reason.NODE_ERROR
    return records.Failure(reason=reason, text=text, node_id="3", node_type="KSampler", traceback="")


def bound(make: Callable[[], Any]) -> Any:
    """A bound socket; libzmq gives up a port a moment after the socket that had it was closed."""
    for _ in range(500):
        try:
            return make()
        except ConfigError:
            gevent.sleep(0.01)
    return make()


class FakeBroker:
    def __init__(self, context: Any, network: Network | None = None) -> None:
        """network: listen where an earlier one did."""
        free = "tcp://127.0.0.1:*"
        given = network if network is not None else Network(clients=free, events=free, files=free)
        self._clients = bound(lambda: sockets.router(context, "clients", given, None))
        self._files = bound(lambda: sockets.router(context, "files", given, None))
        self._events = bound(lambda: sockets.publisher(context, given, None))
        self.network = dataclasses.replace(
            given,
            clients=sockets.endpoint_of(self._clients),
            files=sockets.endpoint_of(self._files),
            events=sockets.endpoint_of(self._events),
        )
        self.stream = secrets.token_hex(16)
        self.serial = 0
        self.jobs: dict[str, JobView] = {}
        #: Each job as if it had been submitted alone.
        self.submits: dict[str, client.Submit] = {}
        #: Each Submit, by the id of its job or its group.
        self.asked_before: dict[str, client.Submit] = {}
        self.workers: dict[str, WorkerView] = {}
        self.files: dict[str, bytes] = {}
        self.paused: set[str] = set()
        #: Whether files are refused for want of room.
        self.disk_full = False
        self.outlook: tuple[records.Expected, ...] = ()
        #: Every request heard, in order.
        self.heard: list[Any] = []
        #: Answer instead of the usual, once: request type -> error.
        self.refuse: dict[type[Any], tuple[str, str, int]] = {}
        self.silent = False
        self._watched: set[bytes] = set()
        self._known: set[bytes] = set()
        self._partial: dict[str, tuple[str, int, bytearray]] = {}
        self._greenlets = [gevent.spawn(self._serve_clients), gevent.spawn(self._serve_files)]

    def close(self) -> None:
        gevent.killall(self._greenlets)
        for socket in (self._clients, self._files, self._events):
            socket.close()

    # ---- what a test makes happen

    def publish(self, kind: type[Any], **fields: Any) -> None:
        if kind is not events.JobPreview:
            self.serial += 1
            fields |= {"stream": self.stream, "serial": self.serial}
        self._events.send_multipart([TOPICS[kind], *codec.encode(kind(**fields))])

    def watched(self) -> bool:
        """Whether somebody has subscribed to every topic: what is published before is lost."""
        with contextlib.suppress(zmq.Again):
            while True:
                said = self._events.recv(zmq.NOBLOCK)
                (self._watched.add if said[:1] == b"\x01" else self._watched.discard)(said[1:])
        return self._watched >= set(TOPICS.values())

    def put(self, job: JobView) -> JobView:
        """Add a job or change it, and publish that."""
        self.jobs[job.job_id] = job
        self.publish(events.JobChanged, job=job)
        return job

    def change(self, job_id: str, **changes: Any) -> JobView:
        return self.put(dataclasses.replace(self.jobs[job_id], **changes))

    def say_to_all(self, message: Any) -> None:
        """Send every client that ever asked something a message nobody asked for."""
        for routing_id in self._known:
            self._clients.send_multipart([routing_id, *codec.encode(message)])

    def progress(self, job_id: str, value: int, most: int = 20) -> None:
        attempt = self.jobs[job_id].attempt
        self.publish(events.JobProgress, job_id=job_id, attempt=attempt, progress=a_progress(value, most))

    def preview(self, job_id: str, image: bytes) -> None:
        attempt = self.jobs[job_id].attempt
        self.publish(events.JobPreview, job_id=job_id, attempt=attempt, media_type="image/jpeg", image=image)

    def meet(self, worker: WorkerView) -> None:
        self.workers[worker.worker] = worker
        self.publish(events.WorkerChanged, worker=worker)

    def store(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return digest

    def stats(self) -> records.FleetStats:
        counts = {state.value: sum(job.state is state for job in self.jobs.values()) for state in JobState}
        return records.FleetStats(
            **counts,
            workers=len(self.workers),
            paused="" in self.paused,
            disk_full=False,
            oldest_queued_utc_ms=None,
            invalid_messages=0,
            uptime_ms=1,
            expected_error=None,
        )

    # ---- the clients socket

    def _serve_clients(self) -> None:
        while True:
            routing_id, *frames = self._clients.recv_multipart()
            self._known.add(routing_id)
            asked = codec.decode(frames, codec.ADMIN_SENDS)
            self.heard.append(asked)
            if not self.silent:
                self._clients.send_multipart([routing_id, *codec.encode(self._answer(asked))])

    def _answer(self, asked: Any) -> Any:
        if type(asked) in self.refuse:
            code, text, retry_after_ms = self.refuse.pop(type(asked))
            return client.Error(request_id=asked.request_id, code=code, text=text, retry_after_ms=retry_after_ms)
        return ANSWERS[type(asked)](self, asked)

    def _reply(self, asked: Any, job: JobView, **more: Any) -> client.JobReply:
        fields = {"existed": False, "workflow": b"", "form": b"", **more}
        return client.JobReply(request_id=asked.request_id, job=job, **fields)

    def _error(self, asked: Any, code: str, text: str) -> client.Error:
        return client.Error(request_id=asked.request_id, code=code, text=text, retry_after_ms=0)

    def _submit(self, asked: client.Submit) -> Any:
        for job_id, before in self.asked_before.items():
            same_key = asked.idempotency_key and asked.idempotency_key == before.idempotency_key
            if asked.job_id == job_id or (same_key and before.owner == asked.owner):
                if (before.workflow, before.form) != (asked.workflow, asked.form):
                    return self._error(asked, "conflict", "this key was used for another body")
                return self._submitted(asked, before, existed=True)
        self.asked_before[asked.job_id] = asked
        copied = ("owner", "title", "template", "labels", "priority", "pin")
        for job, place in submits.jobs_of(asked):
            self.submits[job.job_id] = job
            self.put(a_job(job_id=job.job_id, group=place, **{name: getattr(asked, name) for name in copied}))
        return self._submitted(asked, asked)

    def _submitted(self, asked: client.Submit, before: client.Submit, existed: bool = False) -> Any:
        if not before.parts:
            return self._reply(asked, self.jobs[before.job_id], existed=existed)
        size = len(before.parts)
        return client.GroupReply(request_id=asked.request_id, group_id=before.job_id, size=size, existed=existed)

    def _get(self, asked: client.Get) -> Any:
        job = self.jobs.get(asked.job_id)
        if job is None:
            return self._error(asked, "not_found", f"no job has the id {asked.job_id}")
        submit = self.submits.get(asked.job_id)
        if not asked.full:
            return self._reply(asked, job)
        workflow, form = (submit.workflow, submit.form) if submit is not None else (b"{}", b"")
        return self._reply(asked, job, workflow=workflow, form=form)

    def _cancel(self, asked: client.Cancel) -> Any:
        if self.jobs[asked.job_id].state.terminal:
            return self._error(asked, "finished", f"job {asked.job_id} is over: there is nothing left to cancel")
        return self._reply(asked, self.change(asked.job_id, state=JobState.CANCELLED))

    def _retry(self, asked: client.Retry) -> Any:
        if self.jobs[asked.job_id].state not in (JobState.FAILED, JobState.CANCELLED):
            return self._error(asked, "conflict", f"job {asked.job_id} is not over yet")
        return self._reply(asked, self.change(asked.job_id, state=JobState.QUEUED, failure=None))

    def _delete(self, asked: client.Delete) -> Any:
        if not self.jobs[asked.job_id].state.terminal:
            return self._error(asked, "conflict", f"job {asked.job_id} is not over yet")
        gone = self.jobs.pop(asked.job_id)
        self.publish(events.JobGone, job_id=gone.job_id, owner=gone.owner)
        return client.Done(request_id=asked.request_id)

    def _list(self, asked: client.List) -> Any:
        found = [
            job
            for job in reversed(self.jobs.values())
            if asked.owner in ("", job.owner)
            and (not asked.states or job.state in asked.states)
            and asked.template in ("", job.template)
            and (not asked.label or asked.label in job.labels)
            and (not asked.group or (job.group is not None and job.group.group_id == asked.group))
            and all(word in job.title for word in asked.text.split())
            and (asked.since_utc_ms is None or job.created_utc_ms >= asked.since_utc_ms)
            and (asked.until_utc_ms is None or job.created_utc_ms < asked.until_utc_ms)
        ]
        start = int(asked.after) if asked.after else 0
        page = tuple(found[start : start + asked.limit])
        more = str(start + asked.limit) if start + asked.limit < len(found) else ""
        return client.JobsReply(request_id=asked.request_id, jobs=page, next=more)

    def _snapshot(self, asked: client.Snapshot) -> Any:
        return client.SnapshotReply(
            request_id=asked.request_id,
            stream=self.stream,
            serial=self.serial,
            workers=tuple(self.workers.values()),
            jobs=tuple(self.jobs.values()),
            stats=self.stats(),
            outlook=self.outlook,
        )

    def _statistics(self, asked: client.Statistics) -> Any:
        return client.StatisticsReply(request_id=asked.request_id, stats=self.stats())

    def _story(self, asked: client.Story) -> Any:
        line = story.StoryLine(
            utc_ms=CREATED_MS, what="queued", attempt=0, burnt=0, worker="", text="queued", decision=None
        )
        leased = dataclasses.replace(line, what="leased", attempt=1, worker="gpu-2", text="", decision=DECISION)
        return client.StoryReply(request_id=asked.request_id, lines=(line, leased))

    def _load(self, asked: client.Load) -> Any:
        jobs = [job for job in self.jobs.values() if asked.owner in ("", job.owner) and not job.state.terminal]
        waiting = Counter(job.owner for job in jobs if job.state is JobState.QUEUED)
        held = Counter(job.owner for job in jobs if job.state is not JobState.QUEUED)
        owners = tuple(
            records.OwnerLoad(owner=name, queued=waiting[name], running=held[name]) for name in sorted(waiting | held)
        )
        models = (records.ModelLoad(models=("checkpoints/xl",), queued=waiting.total(), running=held.total()),)
        return client.LoadReply(request_id=asked.request_id, owners=owners, models=models, paused="" in self.paused)

    def _of_worker(self, asked: Any) -> Any:
        if asked.worker and asked.worker not in self.workers:
            return self._error(asked, "not_found", f"no worker is called {asked.worker}")
        if isinstance(asked, client.Pause):
            self.paused.add(asked.worker)
        if isinstance(asked, client.Resume):
            self.paused.discard(asked.worker)
        return client.Done(request_id=asked.request_id)

    def _amend(self, asked: Any) -> Any:
        changes = {"priority": asked.priority} if isinstance(asked, client.Reorder) else {}
        if asked.job_id not in self.jobs:
            return self._error(asked, "not_found", f"no job has the id {asked.job_id}")
        return self._reply(asked, self.change(asked.job_id, **changes))

    # ---- the files socket

    def _serve_files(self) -> None:
        while True:
            routing_id, *frames = self._files.recv_multipart()
            if self.silent:
                continue
            for answer in self._transfer(codec.decode(frames, codec.FILES_CLIENT_SENDS)):
                self._files.send_multipart([routing_id, *codec.encode(answer)])

    def _transfer(self, said: Any) -> list[Any]:
        if isinstance(said, files.PutFile) and self.disk_full:
            return [files.FileRefused(request_id=said.request_id, code="full", text="no room")]
        if isinstance(said, files.PutFile):
            self._partial[said.request_id] = (said.sha256, said.size_bytes, bytearray(said.data))
            if len(said.data) == said.size_bytes:
                return self._whole(said.request_id)
            return [files.SendFrom(request_id=said.request_id, offset=0, until=files.CREDIT_BYTES)]
        if isinstance(said, files.Chunk):
            _, size, held = self._partial[said.request_id]
            held += said.data
            if len(held) == size:
                return self._whole(said.request_id)
            until = len(held) + files.CREDIT_BYTES
            return [files.SendFrom(request_id=said.request_id, offset=len(held), until=until)]
        data = self.files.get(said.sha256)
        if data is None:
            return [files.FileRefused(request_id=said.request_id, code="not_found", text="no such file")]
        if isinstance(said, files.StatFile):
            return [files.Have(request_id=said.request_id, sha256=said.sha256, size_bytes=len(data))]
        return [
            files.Chunk(request_id=said.request_id, offset=at, size_bytes=len(data), data=data[at : min(end, until)])
            for until in [min(said.until, len(data), said.offset + files.CREDIT_BYTES)]
            for at in range(said.offset, max(until, said.offset + 1), files.CHUNK_BYTES)
            for end in [at + files.CHUNK_BYTES]
        ]

    def _whole(self, request_id: str) -> list[Any]:
        digest, size, held = self._partial.pop(request_id)
        assert self.store(bytes(held)) == digest
        return [files.Have(request_id=request_id, sha256=digest, size_bytes=size)]


ANSWERS: dict[type[Any], Callable[[Any, Any], Any]] = {
    client.Submit: FakeBroker._submit,
    client.Get: FakeBroker._get,
    client.Cancel: FakeBroker._cancel,
    client.Retry: FakeBroker._retry,
    client.Delete: FakeBroker._delete,
    client.List: FakeBroker._list,
    client.Snapshot: FakeBroker._snapshot,
    client.Statistics: FakeBroker._statistics,
    client.Story: FakeBroker._story,
    client.Load: FakeBroker._load,
    client.Pause: FakeBroker._of_worker,
    client.Resume: FakeBroker._of_worker,
    client.DrainWorker: FakeBroker._of_worker,
    client.ProbeWorker: FakeBroker._of_worker,
    client.RestartWorker: FakeBroker._of_worker,
    client.Pin: FakeBroker._amend,
    client.Reorder: FakeBroker._amend,
}
