"""The templates page: all templates with what each needs and asks for, and the bench on which an admin makes new ones.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from web.describe import Record
from web.pages import form, frame
from web.pages.frame import Frame
from web.words import Words

#: The types of field that an input of a workflow can become; the preview of a form is made of one of each.
KINDS: Final = ("longtext", "text", "image", "integer", "number", "switch", "seed", "choice", "model", "size")
_BLANK_FIELD: Final[Record] = {
    **dict.fromkeys(("default", "min", "max", "step")),
    **dict.fromkeys(("label", "help", "group"), ""),
    "key": "blank",
}


def page(around: Frame, templates: Sequence[Record], *, workers: bool) -> str:
    """workers: whether one is there; else nobody can tell what would run."""
    words, admin = around.words, around.viewer.admin
    return frame.page(
        "templates",
        around,
        data={"admin": admin},
        plans=[plan(one, words, workers=workers, admin=admin) for one in templates],
        kinds=KINDS,
        blank_field=_BLANK_FIELD,
        **form.TOOLS,
    )


def plan(template: Record, words: Words, *, workers: bool, admin: bool) -> dict[str, Any]:
    """The parts of a template's card."""
    needs = template["needs"]
    facts = (
        ("templates.asks", ", ".join(field["label"] for field in template["fields"])),
        ("templates.models", ", ".join(name.rpartition("/")[2] for name in needs["models"])),
        ("templates.nodes", ", ".join(needs["nodes"])),
    )
    return {
        "name": template["name"],
        "title": template["title"],
        "description": template["description"],
        "standing": "barred" if not template["runnable"] else "runnable" if workers else "unknown",
        "why_not": template["why_not"],
        "own": template.get("own", False),
        "deletable": admin,
        "facts": [(words.say(key), text) for key, text in facts if text],
    }
