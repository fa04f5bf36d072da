"""A template: a workflow in API format, and the form that fills it in.

A folder under templates/ holds workflow.json and form.json. `Template.fill` sets a person's values on the parsed graph
and names the field and the reason when one will not do; nothing is ever spliced into text. Pure, but for
`load_templates`, which reads the folders once at start.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Final

from comfyui import strict
from comfyui.workflow import SEED_MAX, Kind, Workflow, WorkflowError, input_fault, parse, set_inputs

TEXT_CHARS: Final = 10_000  # of a text whose form sets no other limit


class TemplateError(Exception):
    """A template's files are at fault. The text names the file and the reason; mend it and start again."""


class _Refused(Exception):
    """A value does not fit its field; the text follows the field's name."""

    def __init__(self, reason: str, kind: Kind = "unprocessable"):
        super().__init__(reason)
        self.kind: Kind = kind


@dataclass(frozen=True, slots=True)
class Target:
    """The input that a field sets."""

    node: str
    input: str
    axis: str = ""  # width or height, for a field of type size


@dataclass(frozen=True, slots=True)
class Field:
    key: str  # the parameter's name
    label: str
    type: str  # text longtext integer number seed choice model image size
    sets: tuple[Target, ...]
    default: object = None  # None: the field must be given; a seed is then drawn
    min: float | None = None  # of a number, of each side of a size, of a text's length
    max: float | None = None
    step: float | None = None  # whole numbers and sizes: multiples of it; others: a hint for the form
    help: str = ""
    group: str = ""
    choices: tuple[str, ...] = ()  # all values of a choice; the offered ones of a size ("1024x768")


@dataclass(frozen=True, slots=True)
class Template:
    name: str  # of its folder
    title: str
    description: str
    fields: tuple[Field, ...]
    result: str  # id of the node whose output is the result
    workflow: Workflow

    def fill(self, params: Mapping[str, object], *, seed: int) -> Workflow:
        """The workflow with these values; what is left out takes its default, a seed takes `seed`.

        Raises: WorkflowError naming the field, for an unknown key or a value that will not do.
        """
        keys = {field.key for field in self.fields}
        unknown = next((key for key in params if key not in keys), None)
        if unknown is not None:
            message = f"the template {self.name} has no field {unknown[:100]!r}; it has {', '.join(sorted(keys))}"
            raise WorkflowError("unknown_field", message, {"field": unknown[:100]})
        values: dict[tuple[str, str], object] = {}
        for field in self.fields:
            given = params.get(field.key)
            value = given if given is not None else seed if field.type == "seed" else field.default
            try:
                values.update(_set(field, value))
            except _Refused as e:
                message = f"field {field.key} ({field.label}): {e}"
                raise WorkflowError("bad_field", message, {"field": field.key}, kind=e.kind) from e
        return set_inputs(self.workflow, values)


def load_templates(folder: Path) -> dict[str, Template]:
    """Every template in `folder`, by name, in the order of their names. Raises: TemplateError."""
    found = sorted(path.parent for path in folder.glob("*/form.json"))
    return {path.name: load_template(path) for path in found}


def load_template(folder: Path) -> Template:
    """The template in one folder. Raises: TemplateError."""
    try:
        workflow = parse((folder / "workflow.json").read_bytes())
    except (OSError, WorkflowError) as e:
        raise TemplateError(f"{folder / 'workflow.json'}: {e}") from e
    try:
        form = strict.load((folder / "form.json").read_bytes())
        strict.check(form)
        return _template(folder.name, workflow, form)
    except (OSError, strict.StrictError, TemplateError) as e:
        raise TemplateError(f"{folder / 'form.json'}: {e}") from e


def _template(name: str, workflow: Workflow, form: object) -> Template:
    given = _given(form, "the form", {"title", "description", "result", "fields"}, set())
    if not isinstance(given["fields"], list):
        raise TemplateError("fields is not a list")
    _check_types("the form", given, {"title": str, "description": str, "result": str})
    if given["result"] not in workflow.nodes:
        raise TemplateError(f"the result node {given['result']!r} is not in the workflow")
    form_fields = tuple(_field(fields_of, workflow) for fields_of in given["fields"])
    keys = [field.key for field in form_fields]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise TemplateError(f"two fields have the key {twice!r}")
    return Template(name, given["title"], given["description"], form_fields, given["result"], workflow)


def _field(form: object, workflow: Workflow) -> Field:
    needed = {item.name for item in fields(Field) if item.default is MISSING}
    given = _given(form, "a field", needed, {item.name for item in fields(Field)} - needed)
    _check_types(f"field {given['key']}", given, _TYPES)
    if given["type"] not in _VALUES:
        raise TemplateError(f"field {given['key']}: no type {given['type']!r}; there are {', '.join(_VALUES)}")
    if not isinstance(given["sets"], list) or not given["sets"]:
        raise TemplateError(f"field {given['key']}: sets is not a list of inputs")
    targets = []
    for entry in given["sets"]:
        where = f"field {given['key']}: an input"
        named = _given(entry, where, {"node", "input"}, {"axis"})
        _check_types(where, named, dict.fromkeys(named, str))
        target = Target(**named)
        if target.node not in workflow.nodes or target.input not in workflow.nodes[target.node].inputs:
            raise TemplateError(f"field {given['key']}: node {target.node} has no input {target.input!r}")
        if (given["type"] == "size") != (target.axis in ("width", "height")):
            raise TemplateError(f"field {given['key']}: an axis, width or height, belongs to a size and only there")
        targets.append(target)
    choices = tuple(given.get("choices", ()))
    _check_types(f"field {given['key']}: a choice", dict(enumerate(choices)), dict.fromkeys(range(len(choices)), str))
    field = Field(**{**given, "sets": tuple(targets), "choices": choices})
    if field.default is not None:
        try:
            _set(field, field.default)
        except _Refused as e:
            raise TemplateError(f"field {field.key}: its default {e}") from e
    return field


def _given(value: object, what: str, needed: set[str], also: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TemplateError(f"{what} is not an object")
    missing, unknown = needed - value.keys(), value.keys() - needed - also
    if missing or unknown:
        names = ", ".join(sorted(missing)) if missing else ", ".join(sorted(unknown))
        raise TemplateError(f"{what} {'lacks' if missing else 'has unknown'} {names}")
    return value


def _check_types(where: str, given: Mapping[Any, object], types: Mapping[Any, type | UnionType]) -> None:
    for key, wanted in types.items():
        if key in given and (not isinstance(given[key], wanted) or isinstance(given[key], bool)):
            raise TemplateError(f"{where}: {key} has a value of the wrong type")


def _set(field: Field, value: object) -> dict[tuple[str, str], object]:
    """The inputs that a value sets. Raises: _Refused."""
    if value is None:
        raise _Refused("is required")
    checked = _VALUES[field.type](field, value)
    if isinstance(checked, dict):
        return {(target.node, target.input): checked[target.axis] for target in field.sets}
    return {(target.node, target.input): checked for target in field.sets}


def _text(field: Field, value: object) -> str:
    if not isinstance(value, str):
        raise _Refused("must be text")
    try:
        strict.check(value)
    except strict.StrictError as e:
        raise _Refused(str(e), "bad_request") from e
    least, most = field.min if field.min is not None else 0, field.max if field.max is not None else TEXT_CHARS
    if len(value) > most:
        raise _Refused(f"has {len(value)} characters; the limit is {most:g}", "too_large")
    if len(value.strip()) < least:
        raise _Refused("must not be empty" if least == 1 else f"needs at least {least:g} characters")
    return value


def _number(field: Field, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= SEED_MAX:
        raise _Refused("must be a number")
    if field.min is not None and value < field.min:
        raise _Refused(f"must be at least {field.min:g}")
    if field.max is not None and value > field.max:
        raise _Refused(f"must be at most {field.max:g}")
    return value


def _integer(field: Field, value: object) -> int:
    if type(value) is not int:
        raise _Refused("must be a whole number")
    _number(field, value)
    if field.step is not None and value % int(field.step) != 0:
        raise _Refused(f"must be a multiple of {field.step:g}")
    return value


def _seed(_: Field, value: object) -> int:
    """Also in digits: a browser's numbers end at 2^53."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value <= SEED_MAX:
        raise _Refused(f"must be a whole number from 0 to {SEED_MAX}", "bad_request")
    return value


def _choice(field: Field, value: object) -> str:
    if not isinstance(value, str) or value not in field.choices:
        raise _Refused(f"must be one of {', '.join(field.choices)}")
    return value


def _image(field: Field, value: object) -> str:
    fault = input_fault(_text(field, value))
    if fault is not None:
        raise _Refused(fault)
    return _text(field, value)


def _size(field: Field, value: object) -> dict[str, int]:
    """ "1024x768": width, then height."""
    sides = value.split("x") if isinstance(value, str) else []
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and len(side) <= 6 for side in sides):
        raise _Refused("must be a width and a height such as 1024x768")
    return {"width": _integer(field, int(sides[0])), "height": _integer(field, int(sides[1]))}


_TYPES: Final[Mapping[str, type | UnionType]] = {
    **dict.fromkeys(("key", "label", "type", "help", "group"), str),
    **dict.fromkeys(("min", "max", "step"), int | float),
    **dict.fromkeys(("sets", "choices"), list),
}
#: Field type -> the value to set, or one for each axis. Whether a model exists is the fleet's question (check.py).
_VALUES: Final[Mapping[str, Callable[[Field, object], object]]] = {
    "text": _text,
    "longtext": _text,
    "integer": _integer,
    "number": _number,
    "seed": _seed,
    "choice": _choice,
    "model": _text,
    "image": _image,
    "size": _size,
}
