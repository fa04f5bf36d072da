"""The form file of a template: from parsed JSON to a Template, and back.

Every fault is a TemplateError with the path that leads to it, so that whoever has the file can name the line. Says
nothing about the fleet. Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Final

from comfyui import story, strict
from comfyui.fields import Field, Target
from comfyui.template import Template, TemplateError
from comfyui.values import TYPES, seed_max
from comfyui.workflow import SEED_MAX, Workflow, WorkflowError

#: A template is addressed by its name, a parameter by its field's key: neither may need quoting anywhere.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
FIELDS: Final = 100
CHOICES: Final = 2_000
TITLE_CHARS: Final = 100  # of a title, a label, a group
HELP_CHARS: Final = 1_000  # of a description, a help text, a choice

_Path = tuple[str | int, ...]
_NEEDED: Final = {item.name for item in fields(Field) if item.default is MISSING}
_OTHERS: Final = {item.name for item in fields(Field)} - _NEEDED
_TYPES: Final[Mapping[str, type | UnionType]] = {
    **dict.fromkeys(("key", "label", "type", "help", "group"), str),
    **dict.fromkeys(("min", "max", "step"), int | float),
    **dict.fromkeys(("sets", "choices"), list),
}
_LIMITS: Final = {"title": TITLE_CHARS, "label": TITLE_CHARS, "group": TITLE_CHARS}


def template_of(name: str, workflow: Workflow, form: object) -> Template:
    """The template that a form makes of a workflow. Raises: TemplateError."""
    try:
        strict.check(form)
    except strict.StrictError as e:
        raise TemplateError(str(e), e.path) from e
    if NAME.fullmatch(name) is None:
        raise TemplateError(f"the name {name[:100]!r} is not 1 to 64 of a-z, 0-9, - and _")
    given = _given(form, "the form", {"title", "description", "result", "fields"}, set(), ())
    _check_types("the form", given, {"title": str, "description": str, "result": str}, ())
    if not isinstance(given["fields"], list) or len(given["fields"]) > FIELDS:
        raise TemplateError(f"fields is not a list of at most {FIELDS}", ("fields",))
    if given["result"] not in workflow.nodes:
        raise TemplateError(f"the result node {given['result']!r} is not in the workflow", ("result",))
    found: list[Field] = []
    for number, entry in enumerate(given["fields"]):
        field = _field(entry, workflow, ("fields", number))
        if field.key in [other.key for other in found]:
            raise TemplateError(f"two fields have the key {field.key!r}", ("fields", number, "key"))
        found.append(field)
    template = Template(name, given["title"], given["description"], tuple(found), given["result"], workflow)
    _check_story(template)
    _check_defaults(template)
    return template


def form_of(template: Template) -> dict[str, Any]:
    """The form as JSON: `template_of` makes the same template of it."""
    return {
        "title": template.title,
        "description": template.description,
        "result": template.result,
        "fields": [_entry(field) for field in template.fields],
    }


def _entry(field: Field) -> dict[str, Any]:
    """What differs from the defaults of a field."""
    told = {item.name: getattr(field, item.name) for item in fields(Field)}
    told |= {"choices": list(field.choices), "sets": [_target_entry(target) for target in field.sets]}
    empty = {item.name: item.default for item in fields(Field)} | {"choices": []}
    return {key: value for key, value in told.items() if value != empty[key]}


def _target_entry(target: Target) -> dict[str, str]:
    told = {"node": target.node, "input": target.input, "axis": target.axis, "part": target.part}
    return {key: value for key, value in told.items() if value}


def _field(form: object, workflow: Workflow, path: _Path) -> Field:
    given = _given(form, "a field", _NEEDED, _OTHERS, path)
    where = f"field {given['key']}"
    _check_types(where, given, _TYPES, path)
    if KEY.fullmatch(given["key"]) is None:
        message = f"the key {given['key'][:100]!r} is not a small letter and up to 39 of a-z, 0-9 and _"
        raise TemplateError(message, (*path, "key"))
    if given["type"] not in TYPES:
        raise TemplateError(f"{where}: no type {given['type']!r}; there are {', '.join(TYPES)}", (*path, "type"))
    choices = tuple(given.get("choices", ()))
    if len(choices) > CHOICES or (given["type"] == "choice" and not choices):
        message = f"{where}: has {len(choices)} choices; a choice has at least one, and nothing more than {CHOICES}"
        raise TemplateError(message, (*path, "choices"))
    texts = dict.fromkeys(range(len(choices)), str)
    _check_types(f"{where}: a choice", dict(enumerate(choices)), texts, (*path, "choices"))
    field = Field(**{**given, "sets": _targets(given, workflow, path), "choices": choices})
    _check_bounds(field, path)
    return field


def _check_bounds(field: Field, path: _Path) -> None:
    where = f"field {field.key}"
    if field.min is not None and field.max is not None and field.min > field.max:
        raise TemplateError(f"{where}: min is above max", (*path, "min"))
    if field.step is not None and (field.step <= 0 or (field.type != "number" and field.step % 1)):
        raise TemplateError(f"{where}: step is not a whole number above 0", (*path, "step"))
    if field.type == "seed" and not 0 <= seed_max(field) <= SEED_MAX:
        raise TemplateError(f"{where}: max is not from 0 to {SEED_MAX}", (*path, "max"))
    if field.type == "roles" and field.max is not None and field.max > story.ROLES:
        raise TemplateError(f"{where}: max is above {story.ROLES}, the most that StoryDiffusion draws", (*path, "max"))


def _targets(given: Mapping[str, Any], workflow: Workflow, path: _Path) -> tuple[Target, ...]:
    where, path = f"field {given['key']}", (*path, "sets")
    if not isinstance(given["sets"], list) or not given["sets"]:
        raise TemplateError(f"{where}: sets is not a list of inputs", path)
    targets = []
    for number, entry in enumerate(given["sets"]):
        here = (*path, number)
        named = _given(entry, f"{where}: an input", {"node", "input"}, {"axis", "part"}, here)
        _check_types(f"{where}: an input", named, dict.fromkeys(named, str), here)
        target = Target(**named)
        if target.node not in workflow.nodes or target.input not in workflow.nodes[target.node].inputs:
            raise TemplateError(f"{where}: node {target.node} has no input {target.input!r}", here)
        if (given["type"] == "size") != (target.axis in ("width", "height")):
            raise TemplateError(f"{where}: an axis, width or height, belongs to a size and only there", here)
        if (given["type"] == "panels") != (target.part in story.PARTS):
            raise TemplateError(f"{where}: a part, {', '.join(story.PARTS)}, belongs to panels and only there", here)
        is_link = isinstance(workflow.nodes[target.node].inputs[target.input], list)
        if is_link != (target.part == "pictures"):
            what = "is no link" if target.part else "is a link to another node"
            raise TemplateError(f"{where}: input {target.input!r} of node {target.node} {what}", here)
        targets.append(target)
    return tuple(targets)


def _check_story(template: Template) -> None:
    """Panels speak of one list of characters, to nodes that say in which mode they draw."""
    roles = [field for field in template.fields if field.type == "roles"]
    for number, field in enumerate(template.fields):
        if field.type != "panels":
            continue
        path, where = ("fields", number), f"field {field.key}"
        if len(roles) != 1 or [other.type for other in template.fields].count("panels") > 1:
            raise TemplateError(f"{where}: a form with panels has one field of them, and one of roles", path)
        encoders = [target.node for target in field.sets if target.part == "scenes"]
        if not encoders or any(story.mode_of(template.workflow, node) is None for node in encoders):
            message = f"{where}: its scenes go to no node whose switch leads to an infer_mode, as StoryDiffusion's does"
            raise TemplateError(message, path)
        if (field.default is None) != (roles[0].default is None):
            raise TemplateError(f"{where}: panels and roles have defaults together or not at all", path)


def _check_defaults(template: Template) -> None:
    try:
        template.sample({})
    except WorkflowError as e:
        path: _Path = ()
        for number, field in enumerate(template.fields):
            if field.key == e.details.get("field"):
                path = ("fields", number, "default")
        raise TemplateError(f"the defaults: {e}", path) from e


def _given(value: object, what: str, needed: set[str], also: set[str], path: _Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TemplateError(f"{what} is not an object", path)
    missing, unknown = sorted(needed - value.keys()), sorted(value.keys() - needed - also)
    if missing:
        raise TemplateError(f"{what} lacks {', '.join(missing)}", path)
    if unknown:
        raise TemplateError(f"{what} has unknown {', '.join(unknown)}", (*path, unknown[0]))
    return value


def _check_types(where: str, given: Mapping[Any, object], types: Mapping[Any, type | UnionType], path: _Path) -> None:
    for key, wanted in types.items():
        value = given.get(key)
        if key in given and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise TemplateError(f"{where}: {key} has a value of the wrong type", (*path, key))
        if isinstance(value, str) and len(value) > _LIMITS.get(key, HELP_CHARS):
            raise TemplateError(f"{where}: {key} has more than {_LIMITS.get(key, HELP_CHARS)} characters", (*path, key))
