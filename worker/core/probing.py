"""The probe: a prompt of the worker's own, of which the broker hears only whether it succeeded. Pure.

It is followed as an attempt is, so it takes a place in ComfyUI and shows all that an attempt would meet there; but it
is not held for anybody, and its picture is not fetched. Its colour is new each time, or ComfyUI would answer from its
cache.
"""

from __future__ import annotations

from typing import Any, Final

from broker.protocol.records import Limits
from broker.protocol.worker import Complete, Dispatch, Fail, Probed
from comfyui.workflow import Workflow, dump, set_inputs
from worker.core.asks import Key
from worker.core.progress import Pacing
from worker.core.run import Run

#: A probe that takes longer shows that something is wrong.
LIMITS: Final = Limits(start_to_close_ms=45_000, stall_ms=45_000, hung_ms=0)
COLOURS: Final = 1 << 24


class Probing:
    def __init__(self, workflow: Workflow, session: str) -> None:
        """workflow: comfyui/probe.json. session: of this process; no other calls a prompt as this one does."""
        self._workflow = workflow
        self._session = session
        #: The probe under way.
        self.key: Key | None = None
        #: The broker's newest; one that comes while a probe is under way is answered with that.
        self.serial = 0

    def begin(self, out: list[Any], pacing: Pacing, now_ms: int) -> Run:
        """The caller keeps the run among its own until it is over."""
        self.key = (f"probe of {self._session}", now_ms)
        workflow = set_inputs(self._workflow, {("1", "color"): now_ms % COLOURS})
        dispatch = Dispatch(
            job_id=self.key[0], attempt=now_ms, serial=0, files=(), limits=LIMITS, workflow=dump(workflow)
        )
        return Run.dispatched(out, dispatch, pacing, now_ms)

    def answer(self, end: Complete | Fail) -> Probed:
        """What the broker is told of its end."""
        self.key = None
        why = "" if isinstance(end, Complete) else f"{end.failure.reason}: {end.failure.text}"
        return Probed(serial=self.serial, passed=isinstance(end, Complete), why=why[:500])

    def refused(self, why: str) -> Probed:
        return Probed(serial=self.serial, passed=False, why=why)

    def is_about(self, said: Any) -> bool:
        """Whether an attempt's message or ask is the probe's."""
        key = (said.job_id, said.attempt) if hasattr(said, "job_id") else getattr(said, "key", None)
        return key is not None and key == self.key
