"""What a web process sees of a broker, and no more of it: snapshots on request, and the events that somebody gives.

Its own thread answers; whoever publishes does so from one thread of theirs. To a server that speaks no contract
the same goes under its name, as the text or the bytes that its browsers get.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import threading
import uuid
from typing import Final, Self

import zmq

from broker.protocol import client, codec, events, records
from broker.protocol.records import JobState, JobView
from broker.runtime import sockets
from broker.runtime.settings import Network

JOBS: Final = 20
OWNER: Final = "local"
STEPS: Final = 1_000_000


class Standin:
    def __init__(self, jobs: int = JOBS) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        anywhere = "tcp://127.0.0.1:*"
        network = Network(clients=anywhere, workers=anywhere, events=anywhere, files=anywhere, queue=100_000)
        self._clients = sockets.router(self._context, "clients", network, None)
        self._events = sockets.publisher(self._context, network, None)
        self._texts = sockets.publisher(self._context, network, None)
        self.jobs = [_running(number) for number in range(jobs)]
        self._stream, self._serial = secrets.token_hex(16), 0
        #: The stages that jobs are at, so that no event is like another.
        self._step = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._context.destroy(linger=0)

    @property
    def settings(self) -> dict[str, str]:
        """Where a web process finds it."""
        bound = {"clients": self._clients, "events": self._events, "files": self._clients}
        return {f"network.{name}": sockets.endpoint_of(socket) for name, socket in bound.items()}

    @property
    def texts(self) -> str:
        """Where other servers find what they are to send: [name, b"t", text] or [name, b"b", bytes]."""
        return sockets.endpoint_of(self._texts)

    def step(self, name: str = "") -> None:
        """One job is one step further: for the web process, or for another server by its name."""
        self._step += 1
        job = self.jobs[self._step % len(self.jobs)]
        progress = records.Progress(
            kind=records.ProgressKind.STEP, node_id="3", node_type="KSampler", value=self._step, most=STEPS,
            fraction=self._step / STEPS, text="",
        )  # fmt: skip
        if name:
            told = {"type": "progress", "id": job.job_id, "attempt": 1, "progress": dataclasses.asdict(progress)}
            text = json.dumps({"serial": self._step, **told}, separators=(",", ":"))
            self._texts.send_multipart([name.encode(), b"t", text.encode()])
            return
        self._serial += 1
        event = events.JobProgress(
            stream=self._stream, serial=self._serial, job_id=job.job_id, attempt=job.attempt, progress=progress
        )
        self._events.send_multipart([events.TOPIC_PROGRESS, *codec.encode(event)])

    def preview(self, image: bytes, name: str = "") -> None:
        """There is a new preview of one job."""
        self._step += 1
        job = self.jobs[self._step % len(self.jobs)]
        if name:
            head = json.dumps({"id": job.job_id, "attempt": 1, "media_type": "image/jpeg"}).encode()
            self._texts.send_multipart([name.encode(), b"b", len(head).to_bytes(2, "big") + head + image])
            return
        event = events.JobPreview(job_id=job.job_id, attempt=job.attempt, media_type="image/jpeg", image=image)
        self._events.send_multipart([events.TOPIC_PREVIEW, *codec.encode(event)])

    def _answer(self) -> None:
        while not self._stopped.is_set():
            if not self._clients.poll(50):
                continue
            peer, *frames = self._clients.recv_multipart()
            asked = codec.decode(frames, codec.ADMIN_SENDS)
            counts = {state.value: 0 for state in JobState} | {"running": len(self.jobs)}
            stats = records.FleetStats(
                **counts, workers=0, paused=False, disk_full=False, oldest_queued_utc_ms=None, invalid_messages=0,
                uptime_ms=1, expected_error=None,
            )  # fmt: skip
            reply = client.SnapshotReply(
                request_id=asked.request_id, stream=self._stream, serial=self._serial, workers=(),
                jobs=tuple(self.jobs), stats=stats, outlook=(),
            )  # fmt: skip
            self._clients.send_multipart([peer, *codec.encode(reply)])


def _running(number: int) -> JobView:
    return JobView(
        job_id=str(uuid.UUID(int=number + 1)), owner=OWNER, state=JobState.RUNNING, title=f"job {number}", template="",
        labels=(), group=None, priority=0, created_utc_ms=1_800_000_000_000, started_utc_ms=1_800_000_000_000,
        finished_utc_ms=None, attempt=1, burnt=0, worker="gpu", prompt_id="p", phase=records.Phase.RUNNING,
        progress=None, failure=None, timings=None, outputs=(), why=None, expect_ms=None, deadline_utc_ms=None, pin="",
    )  # fmt: skip
