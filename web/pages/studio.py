"""The studio, the page people make pictures on: its first paint holds the form, the jobs and the workers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import bottle

from web import describe, groups
from web.describe import Record
from web.pages import frame
from web.pages.frame import Frame
from web.words import Words

#: The template whose form the page opens with, and the first to pick; where it is missing, the first there is.
HOME_TEMPLATE: Final = "text-to-image"

#: Cards of each list in the first paint: more than any screen shows. The browser adds the others from the same data.
PAINTED: Final = 60

#: Workers in the strip; all of them are on the fleet's own page.
WORKERS: Final = 12

#: The view of a card, and what it is painted with.
Card = tuple[str, dict[str, Any]]

#: What the <template> of a card is rendered from: the browser fills in everything.
_BLANK_JOB: Final[dict[str, Any]] = {
    **dict.fromkeys(("id", "title", "template", "owner"), ""),
    **dict.fromkeys(("worker", "phase", "progress", "error", "timings", "started_ms", "finished_ms")),
    "state": "queued",
    "attempt": 0,
    "outputs": [],
    "can": {"cancel": False, "retry": False},
}
_BLANK_WORKER: Final[Record] = {
    "name": "",
    "state": "joined",
    "paused": False,
    "stats": None,
    "held": [],
}


def page(around: Frame, snapshot: Record, templates: Sequence[Record]) -> str:
    """Form, workers, queue and pictures as the snapshot has them; the scripts go on from the same data."""
    words = around.words
    jobs = {job["id"]: job for job in snapshot["jobs"]}
    entries = groups.members(snapshot["jobs"])
    places = {one["id"]: one["place"] for one in snapshot.get("outlook") or ()}
    workers = sorted(snapshot["workers"], key=lambda one: one["name"])
    return frame.page(
        "studio",
        around,
        data={"snapshot": snapshot, "templates": list(templates)},
        templates=sorted(templates, key=lambda one: bool(one["name"] != HOME_TEMPLATE)),
        workers=[describe.worker_card(one, jobs, words) for one in workers[:WORKERS]],
        more_workers=max(0, len(workers) - WORKERS),
        queue=_cards("queue", entries, places, words),
        gallery=_cards("gallery", entries, places, words),
        counts=describe.counts(snapshot["stats"], snapshot["jobs"], words),
        blank_job=describe.job_card(_BLANK_JOB, words),
        blank_group=groups.group_card([_BLANK_JOB | {"group": {"id": "", "index": 0, "size": 1}}], words),
        blank_worker=describe.worker_card(_BLANK_WORKER, {}, words),
        bounds=_bounds,
        limits=_limits,
        shape=_shape,
        groups_of=_groups,
    )


def _cards(name: str, entries: Sequence[Sequence[Record]], places: Mapping[str, int], words: Words) -> list[Card]:
    """The first cards of one of the page's two lists, in its order; which view paints each, and what with."""
    placed = [(rank, entry) for entry in entries for where, rank in [groups.place(entry)] if where == name]
    placed.sort(key=lambda pair: pair[0])
    return [_card(entry, places, words) for _, entry in placed[:PAINTED]]


def _card(entry: Sequence[Record], places: Mapping[str, int], words: Words) -> Card:
    if entry[0].get("group"):
        return "group.html", groups.group_card(entry, words)
    return "job.html", describe.job_card(entry[0], words, places.get(entry[0]["id"]))


def _groups(template: Record) -> list[str]:
    """The groups of its fields, each once."""
    return list(dict.fromkeys(field["group"] for field in template["fields"] if field["group"]))


def _bounds(field: Record) -> str:
    """The range of a number as people read it, "" for everything else."""
    if field["type"] not in ("integer", "number") or field["min"] is None or field["max"] is None:
        return ""
    return f"{field['min']:g}–{field['max']:g}"


def _limits(field: Record) -> str:
    """The attributes that bound a number input; any step where the field names none."""
    step = field["step"] if field["step"] is not None else 1 if field["type"] == "integer" else "any"
    given = {"min": field["min"], "max": field["max"], "step": step}
    return " ".join(
        f'{name}="{bottle.html_escape(format(value, "g") if value != "any" else value)}"'
        for name, value in given.items()
        if value is not None
    )


def _shape(size: str) -> str:
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
