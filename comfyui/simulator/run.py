"""One prompt while it runs: its state, and every event that tells its owner about it, in the real server's shapes.

It decides nothing about what runs next (executor.py). An event of a prompt without client_id goes to nobody, except
progress, previews and the interrupt, which then go to everybody.
"""

import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from comfyui.simulator.context import OUT_OF_MEMORY, NodeFailure, as_text
from comfyui.simulator.events import Sockets
from comfyui.simulator.graph import Cycle, Graph
from comfyui.simulator.queue import Item
from comfyui.simulator.versions import Release

MEMORY_TIP = "This error means you ran out of memory on your GPU. Try a smaller picture or a smaller batch."


@dataclass
class Run:
    """The prompt that runs."""

    item: Item
    release: Release
    sockets: Sockets
    #: The events that go into the history: [kind, data].
    messages: list[list[Any]] = field(default_factory=list)
    #: Node id → value, max and state, in the order the nodes began.
    progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    #: The node that runs, or failed.
    node_id: str = ""

    @property
    def prompt_id(self) -> str:
        return self.item[1]

    @property
    def graph(self) -> Graph:
        return self.item[2]

    @property
    def extra_data(self) -> dict[str, Any]:
        return dict(self.item[3])

    @property
    def wanted(self) -> list[str]:
        return self.item[4]

    @property
    def client_id(self) -> str | None:
        return self.extra_data.get("client_id")

    def class_of(self, node_id: str) -> str:
        return str(self.graph[node_id]["class_type"])

    def started(self) -> None:
        self._say("execution_start", {"prompt_id": self.prompt_id})

    def cached(self, node_ids: list[str]) -> None:
        self._say("execution_cached", {"nodes": node_ids, "prompt_id": self.prompt_id})

    def succeeded(self) -> None:
        self._say("execution_success", {"prompt_id": self.prompt_id})

    def interrupted(self) -> None:
        self._say("execution_interrupted", self._place(), to_all=True)

    def failed(self, error: Exception, inputs: dict[str, Any]) -> str:
        """Reports the running node's failure with the inputs it had; gives the exception's type name."""
        kind = error.kind if isinstance(error, NodeFailure) else _type_name(error)
        text = str(error)
        if self.release.explains_memory_errors:
            text += "\n" + (MEMORY_TIP if kind == OUT_OF_MEMORY else "")
        facts = {
            "exception_message": text,
            "exception_type": kind,
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_shown(value)] for name, value in inputs.items()},
            "current_outputs": list(self.graph),
        }
        self._say("execution_error", self._place() | facts)
        return kind

    def circular(self, cycle: Cycle) -> None:
        """Reports that nothing more can run."""
        self.node_id = cycle.node_id
        facts: dict[str, Any] = {"exception_message": str(cycle), "exception_type": "graph.DependencyCycleError"}
        facts |= {"traceback": [], "current_inputs": [], "current_outputs": list(self.graph)}
        self._say("execution_error", self._place() | facts)

    def ended(self) -> None:
        """The reliable end mark, to be sent when the history has the prompt."""
        self._to_owner("executing", {"node": None, "prompt_id": self.prompt_id})

    def node_runs(self, node_id: str) -> None:
        self.node_id = node_id
        self.progress[node_id] = {"value": 0.0, "max": 1.0, "state": "running"}
        self._progress_state()
        self._to_owner("executing", {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id})

    def node_ran(self, node_id: str, shown: dict[str, Any] | None) -> None:
        if shown is not None:
            self._executed(node_id, shown)
        last = self.progress[node_id]["max"]
        self.progress[node_id] = {"value": last, "max": last, "state": "finished"}
        self._progress_state()
        self.executed.append(node_id)

    def node_was_cached(self, node_id: str, shown: dict[str, Any] | None) -> None:
        """An output whose result was kept is shown again, also when it has nothing to show."""
        self._executed(node_id, shown)
        self.progress[node_id] = {"value": 1, "max": 1, "state": "finished"}
        self._progress_state()

    def tick(self, value: int, maximum: int, picture: tuple[str, bytes] | None) -> None:
        """Progress of the running node, with a picture ("JPEG" or "PNG", bytes) in the form its owner asked for."""
        self.progress[self.node_id] = {"value": value, "max": maximum, "state": "running"}
        self._progress_state()
        with_metadata = self.release.negotiates and self.sockets.supports(self.client_id, "supports_preview_metadata")
        if picture is not None and with_metadata:
            self.sockets.send_preview(picture[1], picture[0], self._identity(self.node_id), self.client_id)
        # Before 0.3.45 this was the node that the owner was told of last, so a prompt without owner had none.
        node = self.node_id if self.release.negotiates or self.client_id is not None else None
        step = {"value": value, "max": maximum, "prompt_id": self.prompt_id, "node": node}
        self.sockets.send("progress", step, self.client_id)
        if picture is not None and not with_metadata:
            self.sockets.send_preview(picture[1], picture[0], None, self.client_id)

    def _say(self, kind: str, data: dict[str, Any], to_all: bool = False) -> None:
        """An event that the history keeps."""
        stamped = {**data, "timestamp": time.time_ns() // 1_000_000}
        self.messages.append([kind, stamped])
        if self.client_id is not None or to_all:
            self.sockets.send(kind, stamped, self.client_id)

    def _to_owner(self, kind: str, data: dict[str, Any]) -> None:
        if self.client_id is not None:
            self.sockets.send(kind, data, self.client_id)

    def _executed(self, node_id: str, shown: dict[str, Any] | None) -> None:
        named = {"node": node_id, "display_node": node_id, "output": shown, "prompt_id": self.prompt_id}
        self._to_owner("executed", named)

    def _place(self) -> dict[str, Any]:
        return {
            "prompt_id": self.prompt_id,
            "node_id": self.node_id,
            "node_type": self.class_of(self.node_id),
            "executed": list(self.executed),
        }

    def _identity(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "prompt_id": self.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def _progress_state(self) -> None:
        if self.release.negotiates:
            nodes = {node: {**state, **self._identity(node)} for node, state in self.progress.items()}
            owner = None if self.release.tells_everybody_progress else self.client_id
            self.sockets.send("progress_state", {"prompt_id": self.prompt_id, "nodes": nodes}, owner)


def _type_name(error: Exception) -> str:
    module, name = type(error).__module__, type(error).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else as_text(value)
