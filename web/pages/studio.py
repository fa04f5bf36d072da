"""The studio, the page people make pictures on: its first paint holds the form, the jobs and the workers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from web import describe, groups
from web.describe import Record
from web.pages import form, frame
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
    "burnt": 0,
    "outputs": [],
    "can": {"cancel": False, "retry": False},
}
_BLANK_WORKER: Final[Record] = {
    "name": "",
    "state": "joined",
    "paused": False,
    "gpu": {"name": ""},
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
        **form.TOOLS,
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
