"""What a workflow needs to run, and what it costs: for choosing a worker. Pure."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfyui.catalogue import LOADERS, NodeClass, model, node_class
from comfyui.names import split_annotation
from comfyui.workflow import Node, Workflow

COUNT_MAX: Final = 2**53
#: What nodes that have a width and a height call the number of pictures: of a batch; and of a video, in ComfyUI's own
#: nodes (EmptyHunyuanLatentVideo, WanImageToVideo, …), in SVD_img2vid_Conditioning, and in many that others wrote.
TIMES: Final = ("batch_size", "length", "video_frames", "num_frames")
_JSON: Final = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True, slots=True)
class Needs:
    nodes: tuple[str, ...]  # node classes; ComfyUI wants them all, also of nodes that will not run
    models: tuple[str, ...]  # opaque names, as in catalogue.Offers
    files: tuple[str, ...]  # names in the input folder
    pixels: int  # of the largest picture or video made from nothing, times its batch; 0 when it cannot be told
    steps: int  # of all samplers together; 0 when it cannot be told
    #: The same for workflows that differ only in texts, numbers, files and node ids: what run times are learnt by.
    signature: str


def needs(workflow: Workflow, object_info: Mapping[str, object]) -> Needs:
    """`object_info` may be one worker's or a fleet's. Nodes that feed no output are not run, so need no files."""
    class_types = {node.class_type for node in workflow.nodes.values()}
    classes = {name: node_class(object_info, name) for name in class_types}
    outputs = [node_id for node_id, node in workflow.nodes.items() if _is_output(classes[node.class_type])]
    run = workflow.upstream(outputs) if outputs else frozenset(workflow.nodes)
    models: set[str] = set()
    files: set[str] = set()
    pixels = steps = 0
    for node_id in run:
        node = workflow.nodes[node_id]
        pixels = max(pixels, _pixels(node))
        steps += _count(node.inputs.get("steps"))
        for name, value in node.inputs.items():
            given = classes[node.class_type]
            if given is None:
                # Nobody has told of this class yet; what core loaders load is known all the same.
                file = model(node.class_type, name, value) if (node.class_type, name) in LOADERS else None
                models.update([file] if file is not None else [])
                continue
            declared = given.inputs.get(name)
            if declared is not None and declared.uploads and isinstance(value, str):
                files.add(split_annotation(value)[0])
            elif declared is not None and declared.choices is not None:
                file = model(node.class_type, name, value)
                models.update([file] if file is not None else [])
    return Needs(
        nodes=tuple(sorted(class_types)),
        models=tuple(sorted(models)),
        files=tuple(sorted(files)),
        pixels=min(pixels, COUNT_MAX),
        steps=min(steps, COUNT_MAX),
        signature=_signature(workflow, run, classes),
    )


def _is_output(given: NodeClass | None) -> bool:
    return given is not None and given.is_output


def _pixels(node: Node) -> int:
    times = math.prod(_count(node.inputs[name]) for name in TIMES if name in node.inputs)
    return _count(node.inputs.get("width")) * _count(node.inputs.get("height")) * times


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _signature(workflow: Workflow, run: frozenset[str], classes: Mapping[str, NodeClass | None]) -> str:
    """Each node is hashed with the hashes of those it links to, so that ids and order do not matter."""
    hashes: dict[str, str] = {}
    for node_id in workflow.order:
        if node_id in run:
            node = workflow.nodes[node_id]
            links = {name: [hashes[link.node_id], link.slot] for name, link in node.links()}
            hashes[node_id] = _hash([node.class_type, links, _switches(node, classes[node.class_type])])
    return _hash(sorted(hashes.values()))


def _switches(node: Node, given: NodeClass | None) -> dict[str, object]:
    """The inputs that change what is done, rather than how much of it: choices and booleans."""
    if given is None:
        return {}
    return {
        name: value
        for name, value in node.inputs.items()
        if isinstance(value, bool)
        or (name in given.inputs and given.inputs[name].choices is not None and not given.inputs[name].uploads)
    }


def _hash(value: object) -> str:
    return hashlib.sha256(_JSON.encode(value).encode()).hexdigest()[:32]
