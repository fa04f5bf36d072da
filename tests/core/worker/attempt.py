"""One attempt with the time at hand, for tests of run.py."""

from __future__ import annotations

from typing import Any

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Phase, Reason
from broker.protocol.worker import Complete, Fail
from comfyui import messages
from comfyui.replies import Absent, Pending, QueueItem, Running
from tests.core.worker.world import PACING, dispatch
from worker.core.asks import Key
from worker.core.run import Run

JOB = "00000000-0000-4000-8000-000000000001"
KEY: Key = JOB, 1
ID = prompt_id_for(*KEY)
ITEM = QueueItem(ID, 0.0, "client", ID)
PENDING, RUNNING, ABSENT = Pending(ITEM, 0), Running(ITEM), Absent()


class Try:
    """A run, the time, and what the last event made it say."""

    def __init__(self, run: Run | None = None, **changes: Any) -> None:
        self.now_ms = 0
        self.out: list[Any] = []
        self.run = run if run is not None else Run.dispatched(self.out, dispatch(1, JOB, **changes), PACING, 0)

    def tell(self, event: str, *arguments: Any, **more: Any) -> list[Any]:
        out: list[Any] = []
        getattr(self.run, event)(out, *arguments, **more)
        self.out += out
        return out

    def at(self, now_ms: int) -> list[Any]:
        self.now_ms = now_ms
        return self.tell("tick", now_ms)

    def look(self, found: Any, now_ms: int | None = None, **more: Any) -> list[Any]:
        self.now_ms = self.now_ms if now_ms is None else now_ms
        return self.tell("looked", found, self.now_ms, **more)

    def hear(self, message: Any) -> list[Any]:
        return self.tell("heard", message, self.now_ms)

    def submit(self) -> None:
        self.tell("submitted", ID, {}, self.now_ms)

    def start(self) -> None:
        self.submit()
        self.hear(messages.ExecutionStart(ID))

    def phase(self) -> Phase | None:
        return self.run.held.phase if self.run.held is not None else None

    def ends(self) -> list[Any]:
        return [said for said in self.out if isinstance(said, (Complete, Fail))]

    def reason(self) -> Reason:
        (end,) = self.ends()
        assert isinstance(end, Fail)
        return end.failure.reason
