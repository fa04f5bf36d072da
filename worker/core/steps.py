"""Where the prompt of an attempt is, what may follow what, and how long each part took. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from broker.protocol.records import Phase, Timings


class Step(enum.Enum):
    """Where the prompt is: still with us, in ComfyUI, or out of it."""

    INPUTS = "inputs"  # files are on their way into ComfyUI
    SUBMITTING = "submitting"
    UNSURE = "unsure"  # ComfyUI may or may not have it
    SOUGHT = "sought"  # an earlier process of this worker had it
    WAITING = "waiting"  # in ComfyUI's queue
    RUNNING = "running"
    DELIVERING = "delivering"  # out of ComfyUI, outputs on their way to the broker
    OUT = "out"


#: step -> the steps that may follow it.
MOVES: Final[Mapping[Step, frozenset[Step]]] = {
    Step.INPUTS: frozenset({Step.SUBMITTING, Step.OUT}),
    Step.SUBMITTING: frozenset({Step.WAITING, Step.UNSURE, Step.OUT}),
    Step.UNSURE: frozenset({Step.SUBMITTING, Step.WAITING, Step.RUNNING, Step.DELIVERING, Step.OUT}),
    Step.SOUGHT: frozenset({Step.WAITING, Step.RUNNING, Step.DELIVERING, Step.OUT}),
    Step.WAITING: frozenset({Step.RUNNING, Step.DELIVERING, Step.OUT}),
    Step.RUNNING: frozenset({Step.DELIVERING, Step.OUT}),
    Step.DELIVERING: frozenset({Step.OUT}),
    Step.OUT: frozenset({Step.DELIVERING}),  # the broker lacks files of a Complete
}
PHASES: Final[Mapping[Step, Phase]] = {
    Step.INPUTS: Phase.STAGING,
    Step.SUBMITTING: Phase.STAGING,
    Step.UNSURE: Phase.STAGING,
    Step.SOUGHT: Phase.STAGING,
    Step.WAITING: Phase.STAGED,
    Step.RUNNING: Phase.RUNNING,
    Step.DELIVERING: Phase.FINISHING,
    Step.OUT: Phase.ENDED,
}
#: ComfyUI has the prompt, as far as is known.
IN_COMFYUI: Final = frozenset({Step.UNSURE, Step.SOUGHT, Step.WAITING, Step.RUNNING})


class Stages:
    """When an attempt passed from one part to the next, by this worker's clock."""

    def __init__(self, now_ms: int) -> None:
        self._began_ms = now_ms
        self._submitted_ms: int | None = None
        self._running_ms: int | None = None
        self._out_ms: int | None = None
        self._run_ms = 0

    @property
    def running_ms(self) -> int | None:
        return self._running_ms

    def submitted(self, now_ms: int) -> None:
        if self._submitted_ms is None:
            self._submitted_ms = now_ms

    def running(self, now_ms: int) -> None:
        self._running_ms = now_ms

    def out(self, now_ms: int) -> None:
        if self._out_ms is None:
            self._out_ms = now_ms

    def measured(self, run_ms: int) -> None:
        """How long it ran by ComfyUI's clock: all that is known where its socket said nothing."""
        self._run_ms = run_ms

    def timings(self, now_ms: int, loading_ms: int) -> Timings:
        """The four parts add up to the attempt's whole time here, whichever of them it reached.

        loading_ms: of the time it ran, as far as ComfyUI's socket showed.
        """
        out_ms = self._out_ms if self._out_ms is not None else now_ms
        submitted_ms = self._submitted_ms if self._submitted_ms is not None else out_ms
        running_ms = self._running_ms if self._running_ms is not None else max(submitted_ms, out_ms - self._run_ms)
        return Timings(
            staging_ms=submitted_ms - self._began_ms,
            waiting_ms=running_ms - submitted_ms,
            running_ms=out_ms - running_ms,
            loading_ms=min(loading_ms, out_ms - running_ms),
            finishing_ms=now_ms - out_ms,
        )
