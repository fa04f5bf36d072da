"""The fleet page: its first paint holds the workers, as cards or, of a large fleet, as the first rows of a table.

Pure.
"""

from __future__ import annotations

import re
from typing import Any, Final

from web import describe
from web.describe import Record, standing
from web.pages import frame
from web.pages.frame import Frame
from web.standing import VERBS, facts
from web.words import Words

#: A fleet larger than this is first shown as a table; static/fleet.js says the same.
CARDS: Final = 24
#: Rows of the table in the first paint: more than any screen shows.
ROWS: Final = 60
#: What needs a person comes first; from "joined" on all is well. static/roster.js says the same.
URGENCY: Final = ("lost", "silent", "open", "probing", "draining", "paused", "joined", "busy", "ready", "left")
#: The orders to pick from.
SORTS: Final = ("state", "name", "load", "rate", "failed")
#: Column, the order that its head sets ("" for none), and the width of the screen it needs.
COLUMNS: Final = (
    ("name", "name", ""),
    ("state", "state", ""),
    ("card", "", "wide"),
    ("load", "load", ""),
    ("memory", "", "mid"),
    ("job", "", "mid"),
    ("rate", "rate", "wide"),
    ("failed", "failed", "wide"),
)
#: What the <template> of a card is rendered from: the browser fills in everything.
_BLANK: Final[Record] = {
    **dict.fromkeys(("name", "version", "comfyui_version"), ""),
    "state": "joined",
    "paused": False,
    "simulated": False,
    "gpu": {"name": ""},
    "stats": None,
    "labels": [],
    "held": [],
    "succeeded": 0,
    "failed": 0,
}


def page(around: Frame, snapshot: Record) -> str:
    """The workers as the snapshot has them, the urgent ones first; the script goes on from the same data."""
    words, admin = around.words, around.viewer.admin
    jobs = {job["id"]: job for job in snapshot["jobs"]}
    workers = sorted(snapshot["workers"], key=_rank)
    painted = workers if len(workers) <= CARDS else workers[:ROWS]
    return frame.page(
        "fleet",
        around,
        data={"snapshot": snapshot, "admin": admin},
        shown="cards" if len(workers) <= CARDS else "table",
        workers=[facts(worker, jobs, words, admin=admin) for worker in painted],
        tally=_tally(workers, words),
        counts=describe.counts(snapshot["stats"], snapshot["jobs"], words),
        blank=facts(_BLANK, {}, words, admin=admin),
        sorts=SORTS,
        columns=COLUMNS,
        verbs=VERBS,
    )


def _rank(worker: Record) -> tuple[int, list[tuple[int, str]]]:
    """The urgent ones first; a card does not move when its worker gets a job."""
    return min(URGENCY.index(standing(worker)), URGENCY.index("joined")), _natural(worker["name"])


def _natural(name: str) -> list[tuple[int, str]]:
    """Names in the order in which people count: w2 before w10."""
    return [(int(part) if part.isdecimal() else -1, part.lower()) for part in re.split(r"([0-9]+)", name)]


def _tally(workers: list[Any], words: Words) -> str:
    """How many workers stand how."""
    stand = [standing(worker) for worker in workers]
    counts = [(stand.count(one), words.say(f"worker.{one}")) for one in URGENCY if one in stand]
    return " · ".join(words.say("fleet.count", count=count, standing=name) for count, name in counts)
