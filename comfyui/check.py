"""Whether a fleet can run a workflow, found out before it is queued. Pure.

The same questions that ComfyUI asks when a prompt is posted, put to the union of what all workers offer. Where only the
node itself knows the answer (choices of custom nodes, types of links) the question is left to ComfyUI.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from comfyui.catalogue import Input, NodeClass, model, node_class
from comfyui.workflow import Link, Node, Workflow, WorkflowError

PROBLEMS: Final = 20  # found in one workflow; then the search stops
_NAMED: Final = 10  # files or classes that are all listed; of more, those that are close
#: Types that only come over a link.
_LINKED: Final = frozenset(
    {"MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "CLIP_VISION", "CONTROL_NET"}
)

_Fault = tuple[str, str, dict[str, object]]  # code, reason, details


def check(workflow: Workflow, object_info: Mapping[str, object]) -> tuple[WorkflowError, ...]:
    """What is wrong, each problem naming its node; () when the workflow can run somewhere.

    `object_info` is the fleet's (catalogue.union). While no worker has announced itself there is nothing to check
    against: do not call.
    """
    classes = {n.class_type: node_class(object_info, n.class_type) for n in workflow.nodes.values()}
    unknown = [node_id for node_id, node in workflow.nodes.items() if classes[node.class_type] is None]
    if unknown:
        return tuple(_unknown_node(workflow, node_id, object_info) for node_id in unknown[:PROBLEMS])
    known = {node_id: found for node_id, node in workflow.nodes.items() if (found := classes[node.class_type])}
    outputs = [node_id for node_id, found in known.items() if found.is_output]
    if not outputs:
        message = "the workflow has no output node: add one that saves or shows its result, such as SaveImage"
        return (WorkflowError("no_output", message),)
    run = workflow.upstream(outputs)
    problems: list[WorkflowError] = []
    for node_id in workflow.order:
        if node_id in run:
            problems.extend(_node_problems(node_id, workflow.nodes[node_id], known))
        if len(problems) >= PROBLEMS:
            break
    return tuple(problems[:PROBLEMS])


def combined(problems: Iterable[WorkflowError]) -> WorkflowError:
    """One error for all of at least one problem: the first one's text, and every one in the details."""
    first, *others = problems
    more = f" (and {len(others)} more)" if others else ""
    listed = [{"code": problem.code, "message": str(problem), **problem.details} for problem in (first, *others)]
    return WorkflowError(first.code, f"{first}{more}", {**first.details, "problems": listed}, kind=first.kind)


def _unknown_node(workflow: Workflow, node_id: str, object_info: Mapping[str, object]) -> WorkflowError:
    class_type = workflow.nodes[node_id].class_type
    close = _closest(class_type, object_info)
    message = (
        f"node {node_id}: no worker has the node class {class_type!r}; {_in_words(close, len(object_info))}. "
        "If it is a custom node, install it in a worker's ComfyUI"
    )
    return WorkflowError("unknown_node", message, {"node_id": node_id, "class_type": class_type, "closest": close})


def _node_problems(node_id: str, node: Node, known: Mapping[str, NodeClass]) -> Iterator[WorkflowError]:
    for name, declared in known[node_id].inputs.items():
        fault: _Fault | None = None
        if name not in node.inputs:
            if declared.required and not declared.type.startswith("COMFY_"):
                fault = "missing_input", "is required", {}
        elif isinstance(node.inputs[name], list):
            fault = _slot_fault(Link(*node.inputs[name]), known)
        else:
            fault = _value_fault(node, name, declared, known[node_id])
        if fault is not None:
            code, reason, details = fault
            message = f"node {node_id} ({node.class_type}), input {name!r}: {reason}"
            yield WorkflowError(code, message, {"node_id": node_id, "input": name, **details})


def _slot_fault(link: Link, known: Mapping[str, NodeClass]) -> _Fault | None:
    source = known[link.node_id]
    if link.slot < source.outputs:
        return None
    reason = f"links to output {link.slot} of node {link.node_id} ({source.name}), which has {source.outputs}, from 0"
    return "unknown_slot", reason, {"slot": link.slot}


def _value_fault(node: Node, name: str, declared: Input, given: NodeClass) -> _Fault | None:
    value = node.inputs[name]
    if declared.uploads and given.is_core:
        return None if isinstance(value, str) else ("bad_path", "must be the name of a file", {})
    if declared.choices is not None:
        return None if declared.uploads else _choice_fault(node, name, declared, given)
    if declared.type in ("INT", "FLOAT"):
        return _number_fault(value, declared)
    if declared.type in _LINKED:
        return "bad_link", f"must be a link to a node that makes {declared.type}", {}
    return None


def _choice_fault(node: Node, name: str, declared: Input, given: NodeClass) -> _Fault | None:
    value, choices = node.inputs[name], declared.choices
    if choices is None or value in choices or declared.options.get("multiselect") is True:
        return None
    texts = [choice for choice in choices if isinstance(choice, str)]
    close = _closest(str(value), texts)
    have = _in_words(close, len(texts))
    if model(node.class_type, name, value) is not None:
        return (
            "unknown_model",
            f"no worker has {str(value)[:200]!r}; {have}",
            {"value": str(value)[:200], "closest": close},
        )
    if given.is_core:
        told: dict[str, object] = {"value": str(value)[:200], "closest": close}
        return "unknown_choice", f"{str(value)[:200]!r} is none of its choices; {have}", told
    return None  # a custom node may accept more than it lists


def _number_fault(value: Any, declared: Input) -> _Fault | None:
    try:
        # As ComfyUI converts it, texts too, and judges what comes of it: int("1.5") fails, int(1.5) is 1. Never by way
        # of a float: the largest seed would be above itself.
        number = int(value) if declared.type == "INT" else float(value)
        is_finite = math.isfinite(number)
    except (TypeError, ValueError, OverflowError):
        is_finite = False
    if not is_finite:
        return "not_a_number", "must be a number", {}
    low, high = declared.options.get("min"), declared.options.get("max")
    if isinstance(low, int | float) and number < low:
        return "value_too_small", f"{value} is below the least value, {low}", {"min": low}
    if isinstance(high, int | float) and number > high:
        return "value_too_large", f"{value} is above the greatest value, {high}", {"max": high}
    return None


def _closest(wanted: str, have: Iterable[str]) -> list[str]:
    """A few names like the one wanted; all of them when there are few, those first."""
    # Bounded: comparing long names with thousands of others takes seconds.
    names = [name for name in have if len(name) <= 200][:2_000]
    close = difflib.get_close_matches(wanted[:100], names, n=3)
    return close if len(names) > _NAMED else [*close, *sorted(set(names) - set(close))]


def _in_words(close: list[str], total: int) -> str:
    if total == 0:
        return "the fleet has none"
    if not close:
        return f"none of the fleet's {total} is close"
    named = ", ".join(close)
    return f"the fleet has {named}" if len(close) == total else f"closest of the fleet's {total}: {named}"
