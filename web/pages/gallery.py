"""The gallery, every job as a card, newest first: its first paint holds the first page of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from web import describe
from web.describe import Record
from web.pages import frame
from web.pages.frame import Frame
from web.words import Words

#: What its address may hold. static/query.js reads the same address in the browser.
FILTERS: Final = ("q", "state", "template", "label", "owner", "from", "to")
#: Jobs in the first paint.
PAINTED: Final = 60
STATES: Final = ("queued", "running", "succeeded", "failed", "cancelled")

_TILES: Final = 4
_ENDED: Final = ("succeeded", "failed", "cancelled")
_BLANK: Final[Record] = {
    **dict.fromkeys(("id", "title", "template", "owner"), ""),
    **dict.fromkeys(("worker", "phase", "progress", "error", "timings", "started_ms", "finished_ms", "group")),
    "state": "queued",
    "attempt": 0,
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
        cards=[shot(group, words) for group in _grouped(jobs)],
        blank=shot([_BLANK], words),
        more=f"/gallery?{more}" if more else "",
        empty="" if jobs or more or found is None else "no-match" if filters else "no-shots",
    )


def _grouped(jobs: Sequence[Record]) -> list[list[Record]]:
    """The jobs of each card: those of one submit in their own order, where the newest of them stands."""
    groups: dict[str, list[Record]] = {}
    for job in jobs:
        member = job.get("group")
        groups.setdefault(job["id"] if member is None else member["id"], []).insert(0, job)
    return list(groups.values())


def shot(jobs: Sequence[Record], words: Words) -> dict[str, Any]:
    """The parts of a card. tiles: its pictures, "" where there is none yet. bar: None where nothing moves."""
    say = words.say
    speaker = _speaker(jobs)
    card = describe.job_card(speaker, words)
    several = jobs[0].get("group")
    total = 1 if several is None else several["size"]
    ended = sum(job["state"] in _ENDED for job in jobs)
    made = sum(len(describe.pictures(job)) for job in jobs)
    bar, took = card["bar"], card["took"]
    many = say("jobs.many", count=made) if made > 1 else ""
    if several is not None:
        many = say("gallery.part", ended=ended, total=total) if ended < total else many
        bar = None if bar is None else sum(map(_share, jobs)) / total
        took = ""
    done = speaker["state"] == "succeeded"
    return {
        "key": several["id"] if several is not None else jobs[0]["id"],
        "open": jobs[0]["id"],
        "state": speaker["state"],
        "title": card["title"],
        "badge": card["badge"],
        "tiles": _tiles(jobs, several is not None),
        "many": many,
        "bar": bar,
        "problem": card["problem"],
        "status": (speaker["template"] or say("gallery.workflow")) if done else card["status"],
        "aside": took if bar is None else say("jobs.percent", percent=int(bar * 100)),
    }


def _speaker(jobs: Sequence[Record]) -> Record:
    """Of several jobs the first of the first kind there is speaks for all."""
    open_ones = [job for job in jobs if job["state"] not in _ENDED]
    moving = [job for job in open_ones if job["state"] != "queued" and not describe.is_next(job)]
    done = [job for job in jobs if job["state"] == "succeeded"]
    return [*moving, *open_ones, *done, *jobs][0]


def _share(job: Record) -> float:
    if job["state"] in _ENDED:
        return 1.0
    return float(job["progress"]["fraction"]) if job["progress"] is not None else 0.0


def _tiles(jobs: Sequence[Record], several: bool) -> list[str]:
    """Of one submit a picture of each job; of one job the first of its pictures."""
    if several:
        return [(describe.pictures(job) or [{"url": ""}])[0]["url"] for job in jobs[:_TILES]]
    return [output["url"] for output in describe.pictures(jobs[0])[:_TILES]] or [""]
