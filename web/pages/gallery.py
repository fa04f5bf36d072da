"""The gallery, every job as a card, newest first: its first paint holds the first page of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from web import describe, groups
from web.describe import Record
from web.pages import frame
from web.pages.frame import Frame
from web.words import Words

#: What its address may hold. static/query.js reads the same address in the browser.
FILTERS: Final = ("q", "state", "template", "label", "owner", "from", "to")
#: Jobs in the first paint.
PAINTED: Final = 60
#: The states to pick from, as people tell them apart -> what the API is asked for.
STATES: Final = {
    "queued": "queued",
    "running": "leased,running,cancelling",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}

_TILES: Final = 4
_BLANK: Final[Record] = {
    **dict.fromkeys(("id", "title", "template", "owner"), ""),
    **dict.fromkeys(("worker", "phase", "progress", "error", "timings", "started_ms", "finished_ms", "group")),
    "state": "queued",
    "attempt": 0,
    "burnt": 0,
    "outputs": [],
    "can": {"cancel": False, "retry": False},
}


def page(around: Frame, found: Record | None, filters: Mapping[str, str], offers: Record, after: str) -> str:
    """found: a page of jobs as the API lists them, None if it could not be had. offers: what can be picked of templates
    and labels. after: where the page begins, "" for the newest."""
    words = around.words
    jobs = found["jobs"] if found is not None else []
    more = urlencode({**filters, "after": found["next"]}) if found is not None and found["next"] else ""
    return frame.page(
        "gallery",
        around,
        data={} if found is None or after else {"page": found},
        filters=dict.fromkeys(FILTERS, "") | dict(filters),
        states=STATES,
        offers=offers,
        cards=[shot(group, words) for group in groups.members(jobs)],
        blank=shot([_BLANK], words),
        more=f"/gallery?{more}" if more else "",
        empty="" if jobs or more or found is None else "no-match" if filters else "no-shots",
    )


def shot(jobs: Sequence[Record], words: Words) -> dict[str, Any]:
    """The parts of a card. tiles: its pictures, "" where there is none yet. bar: None where nothing moves."""
    job = jobs[0]
    together = job.get("group") is not None
    card = groups.group_card(jobs, words) if together else describe.job_card(job, words)
    made = sum(len(describe.pictures(one)) for one in jobs)
    own = [{"id": job["id"], "picture": output["url"]} for output in describe.pictures(job)]
    tiles = card["tiles"] if together else own or [{"id": job["id"], "picture": ""}]
    if together:  # what came to nothing leaves its room to the pictures
        tiles = [one for one in tiles if one["picture"] or one["state"] not in {"", *groups.ENDED}] or [
            {"id": job["id"], "picture": ""}
        ]
    done = card["state"] == "succeeded" and not together
    # What a worker only holds ready is not being made yet.
    is_next = not together and describe.is_next(job)
    return {
        "key": card["id"],
        "open": job["id"],
        "state": "queued" if is_next else card["state"],
        "title": card["title"],
        "badge": card["badge"],
        "tiles": [{name: tile[name] for name in ("id", "picture")} for tile in tiles[:_TILES]],
        "many": words.say("jobs.many", count=made) if made > 1 else "",
        "bar": None if is_next else card["bar"],
        "problem": card.get("problem", ""),
        "status": (job["template"] or words.say("gallery.workflow")) if done else card["status"],
        "aside": "" if is_next else card["percent"] or card["took"],
    }
