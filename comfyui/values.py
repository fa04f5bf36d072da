"""What a person entered in a field, checked and read into what the workflow is given.

Each type of field has one reader; a value that will not do is refused with a reason that follows the field's name.
Whether a model exists is the fleet's question (check.py), and what characters and panels mean is story.py's. Pure.
"""

from collections.abc import Callable, Mapping
from typing import Final

from comfyui import story, strict
from comfyui.fields import Field, Refused
from comfyui.workflow import SEED_MAX, input_fault

TEXT_CHARS: Final = 10_000  # of a text whose form sets no other limit
PANELS: Final = 24  # of a story whose form sets no other limit


def read(field: Field, value: object) -> object:
    """The value as the field's type takes it. Raises: Refused."""
    if value is None:
        raise Refused("is required", problem="required")
    return TYPES[field.type](field, value)


def seed_max(field: Field) -> int:
    """The largest seed of a field; a node may take fewer than ComfyUI's own."""
    return int(field.max) if field.max is not None else SEED_MAX


def _text(field: Field, value: object) -> str:
    if not isinstance(value, str):
        raise Refused("must be text")
    try:
        strict.check(value)
    except strict.StrictError as e:
        raise Refused(str(e), "bad_request") from e
    least, most = field.min if field.min is not None else 0, field.max if field.max is not None else TEXT_CHARS
    if len(value) > most:
        reason = f"has {len(value)} characters; the limit is {most:g}"
        raise Refused(reason, "too_large", problem="long", have=len(value), max=most)
    if len(value.strip()) < least:
        if least == 1:
            raise Refused("must not be empty", problem="required")
        raise Refused(f"needs at least {least:g} characters", problem="short", min=least)
    return value


def _number(field: Field, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= SEED_MAX:
        raise Refused("must be a number", problem="number")
    if field.min is not None and value < field.min:
        raise Refused(f"must be at least {field.min:g}", problem="min", min=field.min)
    if field.max is not None and value > field.max:
        raise Refused(f"must be at most {field.max:g}", problem="max", max=field.max)
    return value


def _integer(field: Field, value: object) -> int:
    if type(value) is not int:
        raise Refused("must be a whole number", problem="integer")
    _number(field, value)
    if field.step is not None and value % int(field.step) != 0:
        raise Refused(f"must be a multiple of {field.step:g}", problem="step", step=field.step)
    return value


def _switch(_: Field, value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused("must be true or false")
    return value


def _seed(field: Field, value: object) -> int:
    """Also in digits: a browser's numbers end at 2^53."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value <= seed_max(field):
        reason = f"must be a whole number from 0 to {seed_max(field)}"
        raise Refused(reason, "bad_request", problem="seed", max=str(seed_max(field)))
    return value


def _choice(field: Field, value: object) -> str:
    if not isinstance(value, str) or value not in field.choices:
        raise Refused(f"must be one of {', '.join(field.choices)}", problem="choice")
    return value


def _image(field: Field, value: object) -> str:
    """The name of an uploaded picture."""
    name = _text(field, value)
    fault = input_fault(name)
    if fault is not None:
        raise Refused(fault)
    return name


def _size(field: Field, value: object) -> dict[str, int]:
    """ "1024x768": width, then height."""
    sides = value.split("x") if isinstance(value, str) else []
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and len(side) <= 6 for side in sides):
        raise Refused("must be a width and a height such as 1024x768", problem="size")
    return {"width": _integer(field, int(sides[0])), "height": _integer(field, int(sides[1]))}


def _roles(field: Field, value: object) -> tuple[story.Role, ...]:
    roles = story.read_roles(value)
    _count(field, len(roles), "characters", story.ROLES)
    names = [role.name for role in roles]
    twice = next((number for number, name in enumerate(names, start=1) if name in names[: number - 1]), 0)
    if twice:
        name = names[twice - 1]
        raise Refused(f"the name {name} is taken by another character", row=twice, problem="twice", name=name)
    return roles


def _panels(field: Field, value: object) -> tuple[story.Panel, ...]:
    panels = story.read_panels(value)
    _count(field, len(panels), "panels", PANELS)
    return panels


def _count(field: Field, rows: int, what: str, limit: int) -> None:
    least, most = field.min if field.min is not None else 1, field.max if field.max is not None else limit
    if rows < least:
        raise Refused(f"needs at least {least:g} {what}; there are {rows}", problem="min", min=least)
    if rows > most:
        raise Refused(f"has {rows} {what}; the most is {most:g}", problem="max", max=most)


#: Field type -> its reader.
TYPES: Final[Mapping[str, Callable[[Field, object], object]]] = {
    "text": _text,
    "longtext": _text,
    "integer": _integer,
    "number": _number,
    "switch": _switch,
    "seed": _seed,
    "choice": _choice,
    "model": _text,
    "image": _image,
    "size": _size,
    "roles": _roles,
    "panels": _panels,
}
