"""What the views of a form need beside its fields: bounds in words, attributes of inputs, drawings of sizes. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from web.describe import Record


def groups(template: Record) -> list[str]:
    """The groups of its fields, each once."""
    return list(dict.fromkeys(field["group"] for field in template["fields"] if field["group"]))


def bounds(field: Record) -> str:
    """The range of a number as people read it, "" for everything else."""
    if field["type"] not in ("integer", "number") or field["min"] is None or field["max"] is None:
        return ""
    return f"{_plain(field['min'])}–{_plain(field['max'])}"


def _plain(number: float) -> str:
    """Every digit of it, and no exponent where it is whole: 2147483647, 0.01."""
    return str(int(number)) if number == int(number) else repr(number)


def limits(field: Record) -> str:
    """The attributes that bound a number input; any step where the field names none."""
    step = field["step"] if field["step"] is not None else 1 if field["type"] == "integer" else "any"
    given = {"min": field["min"], "max": field["max"], "step": step}
    return " ".join(
        f'{name}="{value if isinstance(value, str) else _plain(value)}"'
        for name, value in given.items()
        if value is not None
    )


def shape(size: str) -> str:
    """A small drawing of a size's proportions, or nothing for a choice that is no size."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if found is None or "0" in found.groups():
        return ""
    width, height = (int(part) for part in found.groups())
    scale = 16 / max(width, height)
    w, h = round(width * scale, 1), round(height * scale, 1)
    return (
        f'<svg viewBox="0 0 18 18" aria-hidden="true"><rect x="{9 - w / 2:.1f}" y="{9 - h / 2:.1f}" '
        f'width="{w}" height="{h}" rx="1.5" fill="none" stroke="currentColor" stroke-width="1.4"/></svg>'
    )


#: For whoever renders form.html or field.html.
TOOLS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "bounds": bounds,
    "limits": limits,
    "shape": shape,
    "groups_of": groups,
}
