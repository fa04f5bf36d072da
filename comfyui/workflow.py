"""A workflow: the graph of nodes that ComfyUI runs, in its API format.

`parse` accepts only graphs that could run somewhere: whole links, no cycles, numbers that survive the journey, file
names that stay in their folder. Whether this fleet can run it is comfyui/check.py's question. Parameters are set on
the parsed graph, never by splicing text. Pure.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from comfyui import strict
from comfyui.names import path_fault, split_annotation

Kind = Literal["bad_request", "unprocessable", "too_large", "forbidden"]

SEEDS: Final = frozenset({"seed", "noise_seed"})
SEED_MAX: Final = 2**64 - 1
PREFIXES: Final = frozenset({"filename_prefix", "subfolder"})
#: Inputs that name a file in ComfyUI's input folder: (class_type, input).
FILE_INPUTS: Final = frozenset(
    {
        ("LoadImage", "image"),
        ("LoadImageMask", "image"),
        ("LoadImageOutput", "image"),
        ("LoadAudio", "audio"),
        ("LoadVideo", "file"),
        ("LoadLatent", "latent"),
        ("Load3D", "model_file"),
        ("Load3DAnimation", "model_file"),
        ("LoadImageSetFromFolderNode", "folder"),
        ("LoadImageTextSetFromFolderNode", "folder"),
        ("VHS_LoadVideo", "video"),
        ("VHS_LoadAudioUpload", "audio"),
        ("VHS_LoadImages", "directory"),
    }
)


class WorkflowError(Exception):
    """The workflow is at fault, not ComfyUI. The text names the node and says what to do; `kind` is how an HTTP
    front should answer (400, 422, 413, 403)."""

    def __init__(
        self, code: str, message: str, details: Mapping[str, object] | None = None, *, kind: Kind = "unprocessable"
    ):
        super().__init__(message)
        self.code = code
        self.details: Mapping[str, object] = details if details is not None else {}
        self.kind: Kind = kind


@dataclass(frozen=True, slots=True)
class Limits:
    size_bytes: int = 8 << 20
    nodes: int = 5_000
    depth: int = strict.DEPTH
    text_chars: int = 100_000  # of one input: a prompt, or a picture in base64


class Link(NamedTuple):
    """The output `slot` of another node."""

    node_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class Node:
    class_type: str
    inputs: Mapping[str, Any]  # a list is always a link [node_id, slot]
    extra: Mapping[str, Any]  # what else stood beside them, such as _meta

    def links(self) -> Iterator[tuple[str, Link]]:
        return ((name, Link(*value)) for name, value in self.inputs.items() if isinstance(value, list))


@dataclass(frozen=True, slots=True)
class Workflow:
    """A graph that passed every check of `parse`."""

    nodes: Mapping[str, Node]
    order: tuple[str, ...] = field(compare=False)  # every node after those it links to

    def upstream(self, node_ids: Iterable[str]) -> frozenset[str]:
        """These nodes and all that they need: what ComfyUI runs for them."""
        needed = set(node_ids)
        for node_id in reversed(self.order):
            if node_id in needed:
                needed.update(link.node_id for _, link in self.nodes[node_id].links())
        return frozenset(needed)

    def graph(self) -> dict[str, dict[str, Any]]:
        """The value of "prompt" in ComfyUI's POST /prompt."""
        return {
            node_id: {"class_type": node.class_type, "inputs": node.inputs, **node.extra}
            for node_id, node in self.nodes.items()
        }


DEFAULT_LIMITS: Final = Limits()


def parse(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Workflow:
    """The workflow in a JSON text. Raises: WorkflowError."""
    if len(raw) > limits.size_bytes:
        message = f"the workflow has {len(raw)} bytes; the limit is {limits.size_bytes}"
        raise WorkflowError("workflow_too_large", message, kind="too_large")
    try:
        value = strict.load(raw)
    except strict.StrictError as e:
        raise WorkflowError("not_json", f"the workflow is not valid JSON: {e}", kind="bad_request") from e
    return of(value, limits)


def of(value: object, limits: Limits = DEFAULT_LIMITS) -> Workflow:
    """The workflow in parsed JSON (by strict.load, if it came from outside). Raises: WorkflowError."""
    try:
        strict.check(value, depth=limits.depth)
    except strict.StrictError as e:
        where = ".".join(e.path)[:300]
        message = f"the workflow's JSON {f'at {where} ' if where else ''}{e}"
        details = {"node_id": e.path[0]} if e.path else {}
        raise WorkflowError("bad_text", message, details, kind="bad_request") from e
    if not isinstance(value, dict):
        message = "a workflow is a JSON object with one entry for each node"
        raise WorkflowError("not_a_workflow", message, kind="bad_request")
    if isinstance(value.get("nodes"), list):
        raise WorkflowError(
            "ui_format",
            "this is the editor's own format; in ComfyUI choose Workflow > Export (API) and send that file "
            "(export in API format)",
        )
    if not value:
        raise WorkflowError("not_a_workflow", "the workflow has no nodes", kind="bad_request")
    if len(value) > limits.nodes:
        message = f"the workflow has {len(value)} nodes; the limit is {limits.nodes}"
        raise WorkflowError("too_many_nodes", message)
    nodes = {node_id: _node(node_id, fields) for node_id, fields in value.items()}
    for node_id, node in nodes.items():
        _check_inputs(node_id, node, nodes, limits)
    return Workflow(nodes, _order(nodes))


def dump(workflow: Workflow) -> bytes:
    """The same bytes for the same graph, whatever order its parts came in; `parse` gives the workflow back."""
    return json.dumps(
        workflow.graph(), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def set_inputs(
    workflow: Workflow, values: Mapping[tuple[str, str], object], limits: Limits = DEFAULT_LIMITS
) -> Workflow:
    """A copy with these inputs, by (node id, input), set anew. Raises: WorkflowError, also for an input that is
    not there."""
    graph = workflow.graph()
    for (node_id, name), value in values.items():
        if node_id not in graph or name not in graph[node_id]["inputs"]:
            message = f"node {node_id} of the workflow has no input {name!r} to set"
            raise WorkflowError("no_such_input", message, {"node_id": node_id, "input": name})
        graph[node_id]["inputs"] = {**graph[node_id]["inputs"], name: value}
    return of(graph, limits)


def _node(node_id: str, fields: object) -> Node:
    if not isinstance(fields, dict) or not isinstance(fields.get("class_type"), str) or not fields["class_type"]:
        raise WorkflowError("bad_node", f"node {node_id[:100]!r} has no class_type", {"node_id": node_id})
    if not isinstance(fields.get("inputs"), dict):
        raise WorkflowError("bad_node", f"node {node_id[:100]!r} has no object of inputs", {"node_id": node_id})
    class_type = fields["class_type"]
    if not class_type.isprintable() or len(class_type) > 200 or not node_id.isprintable() or len(node_id) > 200:
        message = f"node {node_id[:100]!r} has an id or class_type that is not a plain name"
        raise WorkflowError("bad_node", message, {"node_id": node_id})
    extra = {key: value for key, value in fields.items() if key not in ("class_type", "inputs")}
    return Node(class_type, fields["inputs"], extra)


def _check_inputs(node_id: str, node: Node, nodes: Mapping[str, Node], limits: Limits) -> None:
    for name, value in node.inputs.items():
        where = f"node {node_id} ({node.class_type}), input {name[:100]!r}"
        if isinstance(value, list):
            fault = _link_fault(node_id, value, nodes)
        elif name in SEEDS:
            fault = _seed_fault(value)
        else:
            fault = _text_fault(node, name, value, limits)
        if fault is not None:
            code, kind, reason = fault
            raise WorkflowError(code, f"{where}: {reason}", {"node_id": node_id, "input": name}, kind=kind)


_Fault = tuple[str, Kind, str]


def _link_fault(node_id: str, value: list[Any], nodes: Mapping[str, Node]) -> _Fault | None:
    shaped = len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int and value[1] >= 0
    if not shaped:
        return "bad_link", "unprocessable", 'a link must be ["node id", output number]'
    if value[0] not in nodes:
        return "missing_link", "unprocessable", f"links to node {value[0][:100]!r}, which does not exist"
    if value[0] == node_id:
        return "cycle", "unprocessable", "links to its own node"
    return None


def _seed_fault(value: object) -> _Fault | None:
    if type(value) is int and 0 <= value <= SEED_MAX:
        return None
    return "bad_seed", "bad_request", f"a seed is a whole number from 0 to {SEED_MAX}"


def _text_fault(node: Node, name: str, value: object, limits: Limits) -> _Fault | None:
    if not isinstance(value, str):
        return None
    if len(value) > limits.text_chars:
        reason = f"the text has {len(value)} characters; the limit is {limits.text_chars}"
        return "text_too_long", "too_large", reason
    path_reason = None
    if name in PREFIXES and value:
        path_reason = path_fault(value)
    elif (node.class_type, name) in FILE_INPUTS:
        path_reason = input_fault(value)
    return ("bad_path", "unprocessable", f"the file name {path_reason}") if path_reason is not None else None


def input_fault(value: str) -> str | None:
    """Why `value` may not name a file to load, in words that follow "it"; None when it may."""
    name, folder = split_annotation(value)
    if folder != "input":
        return f"reads ComfyUI's {folder} folder, which holds other people's pictures; upload the file instead"
    return path_fault(name)


def _order(nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """Walks each node's links to their ends. Iterative: a chain may be as long as the workflow."""
    done: dict[str, None] = {}  # an ordered set
    for start in nodes:
        path: dict[str, Iterator[str]] = {}  # from `start` down to here, each with the links not yet walked
        step: str | None = start if start not in done else None
        while step is not None:
            if step in path:
                ids = list(path)
                cycle = ids[ids.index(step) :][:100]
                message = f"the links form a cycle: {' -> '.join([*cycle[:20], step])}"
                raise WorkflowError("cycle", message, {"node_id": step, "nodes": cycle})
            path[step] = (link.node_id for _, link in nodes[step].links())
            step = _next_step(path, done)
    return tuple(done)


def _next_step(path: dict[str, Iterator[str]], done: dict[str, None]) -> str | None:
    """The next node on the way down; those whose links are all walked leave the path. None at the end."""
    while path:
        last = next(reversed(path))
        for linked in path[last]:
            if linked not in done:
                return linked
        done[last] = None
        del path[last]
    return None
