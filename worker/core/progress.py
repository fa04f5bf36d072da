"""How far a prompt is, and how often that is said: ComfyUI's steps in, a fraction of the whole prompt out. Pure.

ComfyUI counts the steps of one node at a time and never says how much is left. Nodes that sample dwarf the rest, so
a node weighs as many parts as it has steps, any other weighs one; cached nodes weigh nothing. The fraction never falls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from broker.protocol.records import Progress, ProgressKind
from broker.protocol.worker import ProgressReport
from comfyui.words import plain
from comfyui.workflow import Node, Workflow
from worker.core.asks import Key

#: What a sampler weighs whose number of steps comes over a link.
USUAL_STEPS: Final = 20
MOST_STEPS: Final = 1_000
COUNT_MAX: Final = 2**31
#: A larger preview is not sent: nobody can see it, and a queue of them would delay what matters.
PREVIEW_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """Figures from the configuration."""

    #: After so much silence ComfyUI is asked.
    poll_ms: int
    progress_per_s: int
    #: 0 sends none.
    previews_per_s: int


class Meter:
    """One prompt's progress. Without its workflow (a prompt found again) only the node at work is measured."""

    def __init__(self, workflow: Workflow | None) -> None:
        nodes = workflow.nodes if workflow is not None else {}
        self._types = {node_id: node.class_type for node_id, node in nodes.items()}
        self._weights = {node_id: _weight(node) for node_id, node in nodes.items()}
        self._total = sum(self._weights.values())
        self._done = 0
        self._fraction = 0.0
        #: The node at work, as ComfyUI calls it.
        self.node_id = ""
        self._value = 0
        self._most = 0

    @property
    def node_type(self) -> str:
        return self.type_of(self.node_id)

    def type_of(self, node_id: str) -> str:
        return self._types.get(self._base(node_id), "")

    def of_type(self, class_type: str) -> set[str]:
        return {node_id for node_id, found in self._types.items() if found == class_type}

    def cached(self, nodes: tuple[str, ...]) -> None:
        """These need not run."""
        self._total -= sum(self._weights.pop(node, 0) for node in set(nodes))

    def node(self, node_id: str) -> Progress:
        """A node begins, so the one before has ended."""
        if self._base(node_id) != self._base(self.node_id):
            self._done += self._weights.pop(self._base(self.node_id), 0)
        self.node_id, self._value, self._most = node_id, 0, 0
        return self.now(ProgressKind.NODE)

    def steps(self, node_id: str | None, value: float, most: float) -> Progress:
        if node_id is not None and node_id != self.node_id:
            self.node(node_id)
        self._value, self._most = int(min(value, COUNT_MAX)), int(min(most, COUNT_MAX))
        return self.now(ProgressKind.STEP)

    def now(self, kind: ProgressKind, text: str = "") -> Progress:
        share = self._value / self._most if self._most else 0.0
        if self._total > 0:
            share = (self._done + share * self._weights.get(self._base(self.node_id), 0)) / self._total
        self._fraction = max(self._fraction, min(1.0, share))
        return Progress(
            kind=kind,
            node_id=self.node_id,
            node_type=self.node_type,
            value=self._value,
            most=self._most,
            fraction=self._fraction,
            text=plain(text, 500),
        )

    def _base(self, node_id: str) -> str:
        """A node that another one expanded into is called "parent.…" and counts as its parent."""
        return node_id if node_id in self._types else node_id.split(".", maxsplit=1)[0]


def _weight(node: Node) -> int:
    steps = node.inputs.get("steps")
    if type(steps) is int:
        return max(1, min(steps, MOST_STEPS))
    return USUAL_STEPS if "Sampler" in node.class_type else 1


class Reports:
    """Progress and previews of one attempt, each at its own pace: the latest wins, and the last is never lost."""

    def __init__(self, key: Key, pacing: Pacing) -> None:
        self._key = key
        self._serial = 0
        self._progress = _Lane(1_000 // pacing.progress_per_s)
        self._previews = _Lane(1_000 // pacing.previews_per_s) if pacing.previews_per_s else None
        #: A preview that had to wait goes with what is known by then.
        self._newest: Progress | None = None

    def progress(self, progress: Progress, now_ms: int) -> list[ProgressReport]:
        self._newest = progress
        self._progress.waiting = (progress, "", b"")
        if progress.kind is ProgressKind.STARTED:
            # The broker notes the moment: it must not be replaced by the first node.
            self._progress.due_ms = now_ms
        return self.due(now_ms)

    def preview(self, progress: Progress, media_type: str, image: bytes, now_ms: int) -> list[ProgressReport]:
        self._newest = progress
        if self._previews is not None and len(image) <= PREVIEW_BYTES:
            self._previews.waiting = (progress, media_type, image)
        return self.due(now_ms)

    def due(self, now_ms: int) -> list[ProgressReport]:
        """What may be said now."""
        return [self._report(*said, now_ms) for lane in self._lanes() if (said := lane.take(now_ms)) is not None]

    def deadline_ms(self) -> int | None:
        return min((lane.due_ms for lane in self._lanes() if lane.waiting is not None), default=None)

    def _lanes(self) -> list[_Lane]:
        return [self._progress] if self._previews is None else [self._progress, self._previews]

    def _report(self, progress: Progress, media_type: str, image: bytes, now_ms: int) -> ProgressReport:
        if image and self._newest is not None:
            progress = replace(self._newest, kind=ProgressKind.PREVIEW, text="")
        # Counted by the clock, so that a worker that was restarted goes on above what its predecessor said.
        self._serial = max(self._serial + 1, now_ms)
        job_id, attempt = self._key
        return ProgressReport(
            job_id=job_id,
            attempt=attempt,
            serial=self._serial,
            progress=progress,
            media_type=media_type,
            image=image,
        )


_Said = tuple[Progress, str, bytes]


class _Lane:
    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms
        self.due_ms = 0
        #: The latest; put in place of what still waits.
        self.waiting: _Said | None = None

    def take(self, now_ms: int) -> _Said | None:
        if self.waiting is None or now_ms < self.due_ms:
            return None
        said, self.waiting, self.due_ms = self.waiting, None, now_ms + self._every_ms
        return said
