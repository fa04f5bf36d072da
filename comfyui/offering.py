"""A template out of any workflow: which inputs could become fields, and the files for those that somebody picked.

What a field asks for is taken from the fleet's /object_info where a worker knows the node, else from the value that
stands in the workflow. Writes no files. Pure.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from comfyui.catalogue import Input, model, node_class
from comfyui.fields import Field, Refused, Target
from comfyui.forms import CHOICES, HELP_CHARS, TITLE_CHARS, form_of, template_of
from comfyui.template import Template
from comfyui.values import TEXT_CHARS, read
from comfyui.workflow import DEFAULT_LIMITS, FILE_INPUTS, SEED_MAX, SEEDS, Node, Workflow

#: Core classes whose file is a picture, which is what people can upload.
_PICTURES: Final = frozenset({"LoadImage", "LoadImageMask"})
_LONG_CHARS: Final = 60  # a text longer than this gets more than one line


@dataclass(frozen=True, slots=True)
class Candidate:
    """An input that could become a field, with the field as it would be; a person may change its words."""

    field: Field
    class_type: str
    title: str  # of the node, as the author of the workflow named it


@dataclass(frozen=True, slots=True)
class Drafted:
    """A template that is not on disk yet, and what to write into its folder."""

    template: Template
    files: Mapping[str, bytes]  # by file name


def candidates(workflow: Workflow, object_info: Mapping[str, object]) -> tuple[Candidate, ...]:
    """Every input with a value that a person could give, in the order of the workflow. object_info may be {}."""
    found: list[Candidate] = []
    taken: dict[str, int] = {}
    for node_id in workflow.order:
        node = workflow.nodes[node_id]
        known = node_class(object_info, node.class_type)
        for name, value in node.inputs.items():
            declared = known.inputs.get(name) if known is not None else None
            kind = _type(node, name, value, declared)
            if kind:
                key = _key(name, taken)
                field = _field(key, kind, Target(node_id, name), value, declared)
                found.append(Candidate(field, node.class_type, title(node)))
    return tuple(found)


def results(workflow: Workflow) -> tuple[str, ...]:
    """The ids of the nodes whose output can be the result: those that feed no other, savers first."""
    feeding = {link.node_id for node in workflow.nodes.values() for _, link in node.links()}
    ends = [node_id for node_id in workflow.nodes if node_id not in feeding]
    return tuple(sorted(ends, key=lambda node_id: not workflow.nodes[node_id].class_type.startswith("Save")))


def template_from_workflow(
    name: str, title: str, workflow: Workflow, fields: Sequence[Field], *, description: str = "", result: str = ""
) -> Drafted:
    """The template of these fields: candidates' own, or with their words changed. result: "" takes the likeliest.

    Raises: TemplateError.
    """
    node = result if result else results(workflow)[0]
    form = form_of(Template(name, title, description, tuple(fields), node, workflow))
    template = template_of(name, workflow, form)
    return Drafted(template, {"workflow.json": _pretty(workflow.graph()), "form.json": _pretty(form)})


def _pretty(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _type(node: Node, name: str, value: object, declared: Input | None) -> str:
    """The type of field for an input, "" for what nobody can enter: links, lists, files other than pictures."""
    if (node.class_type, name) in FILE_INPUTS or (declared is not None and declared.uploads):
        marked = declared is not None and declared.options.get("image_upload") is True
        return "image" if isinstance(value, str) and (marked or node.class_type in _PICTURES) else ""
    if isinstance(value, str):
        if model(node.class_type, name, value) is not None:
            return "model"
        if declared is not None and declared.choices:
            return "choice"
        multiline = declared is not None and declared.options.get("multiline") is True
        return "longtext" if multiline or len(value) > _LONG_CHARS or "\n" in value else "text"
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, int) and name in SEEDS:
        return "seed"
    if isinstance(value, int) and (declared is None or declared.type != "FLOAT"):
        return "integer"
    return "number" if isinstance(value, int | float) else ""


def _field(key: str, kind: str, target: Target, value: Any, declared: Input | None) -> Field:
    options = declared.options if declared is not None else {}
    tooltip = options.get("tooltip")
    field = Field(
        key=key,
        label=target.input.replace("_", " ").capitalize()[:TITLE_CHARS],
        type=kind,
        sets=(target,),
        help=tooltip[:HELP_CHARS] if isinstance(tooltip, str) else "",
    )
    if kind in ("integer", "number", "seed"):
        field = _bounded(field, value, options)
    elif kind == "choice" and declared is not None and declared.choices is not None:
        offered = [choice for choice in declared.choices if isinstance(choice, str) and len(choice) <= HELP_CHARS]
        field = replace(field, choices=tuple(dict.fromkeys([*offered[: CHOICES - 1], value])))
    elif kind in ("text", "longtext") and len(value) > TEXT_CHARS:
        field = replace(field, max=DEFAULT_LIMITS.text_chars)
    return field if kind in ("seed", "image") else replace(field, default=_default(field, value))


def _bounded(field: Field, value: float, options: Mapping[str, object]) -> Field:
    low, high, step = (_number(options.get(name)) for name in ("min", "max", "step"))
    if low is not None and high is not None and low > high:
        low = high = None
    if field.type == "seed":
        return replace(field, max=high if high is not None and 0 <= high < SEED_MAX else None)
    if field.type == "integer" and step is not None and (step % 1 or step < 2 or value % step or (low or 0) % step):
        step = None  # ComfyUI's editor counts in such steps from the least value; nobody checks them
    return replace(field, min=low, max=high, step=step if step is None or step > 0 else None)


def _number(value: object) -> int | float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable and isinstance(value, int | float) and abs(value) <= SEED_MAX else None


def _default(field: Field, value: object) -> object:
    """The value in the workflow, unless the field would refuse it: then a person must give one."""
    try:
        read(field, value)
    except Refused:
        return None
    return value


def _key(name: str, taken: dict[str, int]) -> str:
    """A key that is not taken, and is from now on. taken: each with the last number that was put behind it."""
    stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:32]
    stem = stem if stem[:1].isalpha() else f"field_{stem}".rstrip("_")
    number = taken.get(stem, 0) + 1
    while _numbered(stem, number) in taken:
        number += 1
    key = _numbered(stem, number)
    taken[key] = 1
    taken[stem] = number
    return key


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}_{number}"


def title(node: Node) -> str:
    """What its author called the node, else its class."""
    meta = node.extra.get("_meta")
    given = meta.get("title") if isinstance(meta, dict) else None
    return given[:TITLE_CHARS] if isinstance(given, str) and given.strip() else node.class_type[:TITLE_CHARS]
