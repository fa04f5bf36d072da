"""A turn over its store, with a worker's session and a client to speak for, for the tests of turns."""

from __future__ import annotations

import dataclasses
from typing import Any

from broker.core.events import FromClient, FromWorker, Unreachable
from broker.core.fleet import Fleet
from broker.core.invariants import check
from broker.core.rules import Now, Rules
from broker.core.step import AddStory, InsertJob, Write
from broker.protocol import worker as wire
from broker.protocol.errors import StoreError
from broker.protocol.records import JobState
from broker.store.memory import MemoryStore
from broker.turn import GATHER_MS, Outbound, Turn
from tests.core.broker.given import (
    CLIENT,
    DIGEST,
    NEEDS,
    OUTPUT,
    STREAM,
    TIMINGS,
    UTC_MS,
    Given,
    session_id,
)


class Journal(MemoryStore):
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.broken = False

    def apply(self, write: Write) -> None:
        self.calls.append(
            "story" if isinstance(write, AddStory) else "job" if isinstance(write, InsertJob) else "update"
        )
        super().apply(write)

    def commit(self) -> None:
        self.calls.append("commit")
        if self.broken:
            raise StoreError("the disk said no")
        super().commit()

    def workflow(self, job_id: str) -> bytes:
        self.calls.append("workflow")
        return super().workflow(job_id)


class House:
    """A turn over its store, with a worker's session and a client to speak for."""

    def __init__(self) -> None:
        self.store = Journal()
        self.files = {OUTPUT.sha256}
        self.now_ms = 0
        now = Now(0, UTC_MS)
        fleet = Fleet(Rules(), STREAM, jitter=lambda: 0.5, counts={}, last_sequence=0, now=now)
        self.turn = Turn(fleet, self.store, lambda sha256: sha256 in self.files)
        self.gpu = session_id(1)

    def takes(self, *messages: Any, session: str = "") -> Outbound:
        """One turn with these messages: the client's by their request id, the others the worker's."""
        asked = [FromClient(CLIENT, m) for m in messages if hasattr(m, "request_id")]
        heard: list[FromWorker | Unreachable] = [
            m if isinstance(m, Unreachable) else FromWorker(session if session else self.gpu, m)
            for m in messages
            if not hasattr(m, "request_id")
        ]
        out = self.turn.take(heard, asked, Now(self.now_ms, UTC_MS + self.now_ms))
        check(self.turn.fleet)
        return out

    def opens(self, credits: int = 1) -> None:
        said = dataclasses.replace(Given().worker("gpu-0").introduction(), session=self.gpu)
        offer = wire.Capabilities(digest=DIGEST, nodes=NEEDS.nodes, models=())
        self.takes(said, offer, wire.Ready(serial=1, credits=credits, seen=0))

    def later(self) -> Outbound:
        """What leaves once nothing else has for long enough."""
        self.now_ms += GATHER_MS
        return self.takes()

    def state(self, job: str) -> JobState | None:
        found = self.store.job(job)
        return found.state if found is not None else None


def complete(job: str, attempt: int = 1, sha256: str = OUTPUT.sha256) -> wire.Complete:
    outputs = (dataclasses.replace(OUTPUT, sha256=sha256),)
    return wire.Complete(job_id=job, attempt=attempt, outputs=outputs, timings=TIMINGS)


def told(out: Outbound) -> list[Any]:
    return [send.message for send in out.recorded]
