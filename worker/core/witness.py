"""What ComfyUI's socket showed of one prompt: progress for the broker, and pictures that exist nowhere else. Pure.

Only hints come in here, in any order and number; nothing about the attempt is decided by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from broker.protocol.records import ProgressKind
from broker.protocol.worker import ProgressReport
from comfyui import messages
from comfyui.catalogue import loads_models
from comfyui.outputs import FILES, OutputFile
from comfyui.replies import HistoryEntry
from comfyui.workflow import Workflow
from worker.core import verdict
from worker.core.asks import FromSocket, Key, Source
from worker.core.progress import Meter, Pacing, Reports

#: The node whose pictures go over the socket alone, as PNG and the same way as previews.
SOCKET_NODE: Final = "SaveImageWebsocket"
#: Such pictures are kept in memory until they are recorded.
PICTURES: Final = 1_000
PICTURES_BYTES: Final = 256 << 20


class Witness:
    def __init__(self, key: Key, workflow: Workflow | None, pacing: Pacing) -> None:
        """workflow: None for a prompt that was found again."""
        self.pictures: list[FromSocket] = []
        #: Files that nodes have made, as they said so.
        self.files: list[OutputFile] = []
        self._pictures_bytes = 0
        #: How many pictures a node that sends them here has, as it said itself: a socket that drops loses some.
        self._announced: dict[str, float] = {}
        self._workflow = workflow
        self._meter = Meter(workflow)
        #: How long nodes that load models took, and since when one does.
        self.loading_ms = 0
        self._loads_since_ms: int | None = None
        nodes = workflow.nodes if workflow is not None else {}
        self._loaders = frozenset(node_id for node_id, node in nodes.items() if loads_models(node))
        self._reports = Reports(key, pacing)

    def started(self, now_ms: int) -> list[ProgressReport]:
        return self._reports.progress(self._meter.now(ProgressKind.STARTED), now_ms)

    def heard(self, message: messages.Message, now_ms: int) -> list[ProgressReport]:
        match message:
            case messages.ExecutionCached(nodes=nodes):
                self._meter.cached(nodes)
            case messages.Executed(files=files) if len(self.files) < FILES:
                self.files += files
            case messages.Executing(node=str(node)):
                self._at_work(node, now_ms)
                return self._reports.progress(self._meter.node(node), now_ms)
            case messages.Progress(node=node, value=value, max=most):
                progress = self._meter.steps(node, value, most)
                self._announce(self._meter.node_id, most)
                return self._reports.progress(progress, now_ms)
            case messages.ProgressState(nodes=nodes):
                for begun in nodes:
                    self._announce(begun.node, begun.max)
            case messages.ProgressText(text=text):
                return self._reports.progress(self._meter.now(ProgressKind.TEXT, text), now_ms)
            case messages.Preview():
                return self._pictured(message, now_ms)
        return []

    def _announce(self, node_id: str, pictures: float) -> None:
        if self._meter.type_of(node_id) == SOCKET_NODE:
            self._announced[node_id] = pictures

    def _at_work(self, node: str, now_ms: int) -> None:
        if self._loads_since_ms is not None:
            self.loading_ms += now_ms - self._loads_since_ms
        self._loads_since_ms = now_ms if node in self._loaders else None

    def due(self, now_ms: int) -> list[ProgressReport]:
        """Reports that had to wait for their pace."""
        return self._reports.due(now_ms)

    def deadline_ms(self) -> int | None:
        return self._reports.deadline_ms()

    def results(self, files: Sequence[OutputFile]) -> tuple[Source, ...]:
        """What the prompt made, if it made these files."""
        return verdict.results(files, self.pictures)

    def overflow(self) -> str:
        """Why its pictures cannot all be kept; empty when they can."""
        if len(self.pictures) <= PICTURES and self._pictures_bytes <= PICTURES_BYTES:
            return ""
        return f"its pictures over the socket are more than {PICTURES}, or {PICTURES_BYTES >> 20} MiB: use SaveImage"

    def missed(self, entry: HistoryEntry) -> str:
        """Why pictures of a prompt that succeeded cannot all be here; empty when they can."""
        came = Counter(picture.node_id for picture in self.pictures)
        silent = self._meter.of_type(SOCKET_NODE) - came.keys()
        silent |= {node_id for node_id, pictures in self._announced.items() if came[node_id] < pictures}
        if silent:
            return f"pictures of node {min(silent)} went over a socket that was not open"
        if self._workflow is None and not entry.files:
            return "its results, if it had any, went over the socket of an earlier process"
        return ""

    def _pictured(self, message: messages.Preview, now_ms: int) -> list[ProgressReport]:
        if message.node is not None and message.node != self._meter.node_id:
            self._meter.node(message.node)
        if self._meter.node_type != SOCKET_NODE or message.mime != "image/png":
            progress = self._meter.now(ProgressKind.PREVIEW)
            return self._reports.preview(progress, message.mime, message.image, now_ms)
        node_id = self._meter.node_id
        name = f"{node_id[:180]}_{len(self.pictures) + 1:05}.png"
        self.pictures.append(FromSocket(node_id, name, message.image))
        self._pictures_bytes += len(message.image)
        return []
