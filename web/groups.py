"""Jobs that belong together: which entries the studio shows, where each stands, and the one card of a whole group.

Pure. static/groups.js says the same in the browser, word for word: a test runs both over the same records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from web.describe import Record, duration, is_next, job_card
from web.words import Words

ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
#: What the card of a group counts besides what is done.
COUNTED: Final = ("running", "failed", "cancelled")
#: What the rank of a job begins with that a worker holds ready: before every priority, for they end at 100.
_NEXT: Final = -101


def entry_of(job: Record) -> str:
    """What the entry of a job is called: its group, or itself. Senders choose ids: a group may have that of a job."""
    group = job.get("group")
    return f"group:{group['id']}" if group is not None else str(job["id"])


def members(jobs: Iterable[Record]) -> list[list[Record]]:
    """The jobs as they are shown: each by itself, or with the others of its group in their order."""
    together: dict[str, list[Record]] = {}
    for job in jobs:
        together.setdefault(entry_of(job), []).append(job)
    return [
        sorted(found, key=lambda job: job["group"]["index"] if job.get("group") else 0) for found in together.values()
    ]


def group_state(jobs: Sequence[Record]) -> str:
    """The state of a whole group: what still moves comes before what waits, and a failure before what went well."""
    states = {_state(job) for job in jobs}
    order = ("failed", "succeeded", "cancelled") if states <= ENDED else ("running", "leased", "cancelling", "queued")
    state = next(state for state in order if state in states)
    return "running" if state == "leased" else state


def group_card(jobs: Sequence[Record], words: Words) -> dict[str, Any]:
    """The parts of the card of a group, given those of its jobs that are known. tiles: one for each of its jobs."""
    say, first, size = words.say, jobs[0], max(jobs[0]["group"]["size"], len(jobs))
    state = group_state(jobs)
    known = {job["group"]["index"]: job for job in jobs}
    shares = [_share(job) for job in jobs]
    counted = {name: sum(job["state"] == name and not is_next(job) for job in jobs) for name in COUNTED}
    done = say("group.done", count=sum(job["state"] == "succeeded" for job in jobs), size=size)
    over = all(job["state"] in ENDED for job in jobs)
    begun = [job["started_ms"] for job in jobs if job["started_ms"] is not None]
    ended = [job["finished_ms"] for job in jobs if job["finished_ms"] is not None]
    fraction = sum(shares) / size
    return {
        "id": entry_of(first),
        "state": state,
        "title": job_card(first, words)["title"],
        "badge": say(f"state.{state}"),
        "status": " · ".join([done, *(say(f"jobs.{name}", count=n) for name, n in counted.items() if n > 0)]),
        "bar": None if over or state == "queued" else fraction,
        "percent": "" if over or state == "queued" else say("jobs.percent", percent=int(fraction * 100)),
        "took": duration(max(0, max(ended) - min(begun)), words) if over and begun and ended else "",
        "columns": next(n for n in range(1, 9) if n * n >= min(size, 64)),
        "tiles": [_tile(known.get(index), index, words) for index in range(size)],
        "can_cancel": any(job["can"]["cancel"] for job in jobs),
        "can_retry": over and any(job["can"]["retry"] for job in jobs),
        "can_use": first["template"] != "" and over,
    }


def _state(job: Record) -> str:
    """The state of one job of a group; what a worker only holds ready waits."""
    return "queued" if is_next(job) else str(job["state"])


def _share(job: Record) -> float:
    """How much of a job of a group is over."""
    if job["state"] in ENDED:
        return 1.0
    return float(job["progress"]["fraction"]) if job["progress"] is not None and not is_next(job) else 0.0


def _tile(job: Record | None, index: int, words: Words) -> dict[str, Any]:
    """A picture in the card of a group; a job that is not known leaves its place empty."""
    card = job_card(job, words) if job is not None else None
    return {
        "id": card["id"] if card is not None else "",
        "state": _state(job) if job is not None else "",
        "picture": card["picture"] if card is not None else "",
        "label": words.say("group.tile", number=index + 1, state=card["badge"]) if card is not None else "",
    }


def place(jobs: Sequence[Record]) -> tuple[str, tuple[int, int, str]]:
    """In which list one entry of `members` stands, and its rank there: the queue in the order it is served, as far as
    the page can tell; the gallery with what is being made first, then what ended last."""
    first, name = jobs[0], entry_of(jobs[0])
    if all(job["state"] == "queued" or is_next(job) for job in jobs):
        return "queue", min((_NEXT if is_next(job) else -job["priority"], job["created_ms"], name) for job in jobs)
    if any(job["state"] not in ENDED for job in jobs):
        return "gallery", (0, -first["created_ms"], name)
    ended = [job["finished_ms"] if job["finished_ms"] is not None else job["created_ms"] for job in jobs]
    return "gallery", (1, -max(ended), name)
