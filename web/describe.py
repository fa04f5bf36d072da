"""What the page says about a job, a worker and the counts: from the API's records to the words of a card.

Pure, and knows no HTML. static/format.js says the same in the browser, word for word: a test runs both over the same
records. It never reads a clock: texts that grow older by themselves are the browser's alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from web.words import Words

Record = Mapping[str, Any]

GIB = 1 << 30
#: A worker has the job.
_HELD: Final = ("leased", "running", "cancelling")
#: What all names of cards begin with tells none from another.
_MAKER: Final = re.compile(r"^NVIDIA (?:GeForce )?")


def duration(ms: int, words: Words) -> str:
    """A time for people: 840 ms, 12.4 s, 2 min 5 s, 1 h 4 min."""
    if ms < 1_000:
        return words.say("unit.ms", ms=ms)
    if ms < 60_000:
        return words.say("unit.s", s=f"{ms // 1_000}.{ms % 1_000 // 100}")
    if ms < 3_600_000:
        return words.say("unit.min", min=ms // 60_000, s=ms % 60_000 // 1_000)
    return words.say("unit.h", h=ms // 3_600_000, min=ms % 3_600_000 // 60_000)


def gibibytes(size_bytes: int) -> str:
    """One decimal below ten, none above: 7.9, 24."""
    tenths = size_bytes * 10 // GIB
    return f"{tenths // 10}.{tenths % 10}" if tenths < 100 else str((size_bytes + GIB // 2) // GIB)


def pictures(job: Record) -> list[Record]:
    """The outputs worth looking at: saved pictures, else any pictures (ComfyUI's previews of them)."""
    images = [output for output in job["outputs"] if output["media_type"].startswith("image/")]
    return [output for output in images if output["kind"] == "output"] or images


def is_next(job: Record) -> bool:
    """Whether a worker holds the job ready, but its ComfyUI has not begun it."""
    return job["state"] in ("leased", "running") and job["started_ms"] is None


def tries(job: Record) -> int:
    """How often it was begun, as people count: what was moved before it ran was not."""
    return int(min(job["attempt"], job["burnt"] + 1))


def status(job: Record, words: Words, place: int | None = None) -> str:
    """What is happening to the job, in one line. place: from 1 in the queue of the whole fleet, where it is known."""
    say = words.say
    state, progress = job["state"], job["progress"]
    worker = job["worker"] if job["worker"] is not None else say("status.somewhere")
    if state == "queued" and place is not None:
        return say("status.place", place=place)
    if state == "queued":
        return say("status.again" if job["burnt"] > 0 else "status.queued")
    if state == "failed" and job["worker"] is None:
        return say("status.failed.nowhere")
    if is_next(job):
        return say("status.next", worker=worker)
    if state != "running":
        return say(f"status.{state}", worker=worker)
    if job["phase"] == "finishing":
        return say("status.finishing")
    if progress is None or (not progress["node_type"] and not progress["text"]):
        return say("status.starting", worker=worker)
    if progress["kind"] == "text" and progress["text"]:
        return str(progress["text"])
    if progress["most"] > 0:
        return say("status.step", node=progress["node_type"], value=progress["value"], most=progress["most"])
    return say("status.node", node=progress["node_type"])


def node(error: Record, words: Words) -> str:
    """The node that failed, as far as it is known."""
    kind, node_id = error["node_type"], error["node_id"]
    return words.say("error.node", type=kind, id=node_id) if kind and node_id else kind or node_id


def where(job: Record, words: Words) -> str:
    """On which worker it is being made and why on that one, as far as the fleet tells; "" where nothing is made."""
    if job["state"] not in _HELD or job["worker"] is None:
        return ""
    key = f"why.{job.get('why')}"
    return words.say(key if key in words.sentences else "why.unknown", worker=job["worker"])


def because(decision: Record, words: Words) -> str:
    """Why a worker was given a job, as a sentence; "" for a reason of a newer broker."""
    worker, waited_for, say = decision["worker"], decision["waited_for"], words.say
    if f"why.{decision['why']}" not in words.sentences:
        return ""
    plain = say(f"why.{decision['why']}", worker=worker)
    if not waited_for:
        return plain
    waited = duration(decision["waited_ms"], words)
    other = next((one for one in decision["candidates"] if one["worker"] == decision["instead"] != worker), None)
    if decision["why"] == "waited_for_models":
        if other is None or not other["missing_models"]:
            return say("waited.models", waited=waited, worker=worker)
        models, load = ", ".join(map(model_name, other["missing_models"])), duration(other["load_ms"], words)
        return say("waited.loaded", waited=waited, worker=worker, models=models, other=other["worker"], load=load)
    if decision["why"] != "waited_for_faster":
        return say("waited.vain", waited=waited, worker=waited_for, why=plain)
    if other is None:
        return say("waited.faster", waited=waited, worker=worker)
    took = duration(other["load_ms"] + other["run_ms"], words)
    return say("waited.outrun", waited=waited, worker=worker, other=other["worker"], took=took)


def model_name(model: str) -> str:
    """A model by its file's name alone, which is what fits."""
    file = model.rpartition("/")[2]
    return file.rpartition(".")[0] or file


def reason(code: str, words: Words) -> str:
    """Why a job failed; a reason of a newer broker is a failure all the same."""
    key = f"reason.{code}"
    return words.say(key if key in words.sentences else "reason.unknown")


def job_card(job: Record, words: Words, place: int | None = None) -> dict[str, Any]:
    """The parts of a job's card. bar: the share that is done, or None where nothing moves; place: as for `status`."""
    say = words.say
    shown, error, live = pictures(job), job["error"], job["state"] in _HELD
    fraction = job["progress"]["fraction"] if job["progress"] is not None else 0.0
    took = job["started_ms"] is not None and job["finished_ms"] is not None
    return {
        "id": job["id"],
        "state": job["state"],
        "title": job["title"].strip(" \t\r\n") or say("jobs.untitled"),
        "badge": say("state.next" if is_next(job) else f"state.{job['state']}"),
        "status": status(job, words, place),
        "where": where(job, words),
        "picture": shown[0]["url"] if shown else "",
        "many": say("jobs.many", count=len(shown)) if len(shown) > 1 else "",
        "bar": fraction if live else None,
        "percent": say("jobs.percent", percent=int(fraction * 100)) if live else "",
        "attempt": say("jobs.try", attempt=tries(job)) if tries(job) > 1 else "",
        "took": duration(max(0, job["finished_ms"] - job["started_ms"]), words) if took else "",
        "problem": reason(error["reason"], words) if error else "",
        "message": error["message"] if error else "",
        "node": node(error, words) if error else "",
        "can_cancel": job["can"]["cancel"],
        "can_retry": job["can"]["retry"],
        "can_use": job["template"] != "" and not live,
    }


def is_gone(worker: Record) -> bool:
    return worker["state"] in ("lost", "left")


def readings(worker: Record) -> Record | None:
    """What its machine tells; None where it tells nothing, or not any more."""
    return None if is_gone(worker) else worker["stats"]


def memory(stats: Record | None, words: Words) -> tuple[str, float]:
    """How full the card is, as text and as a share; a machine without a card tells its RAM."""
    say = words.say
    if stats is None:
        return say("fleet.memory.unknown"), 0.0
    kind = "vram" if stats["vram_total_bytes"] > 0 else "ram"
    total = stats[f"{kind}_total_bytes"]
    used = max(0, total - stats[f"{kind}_free_bytes"])
    return say(f"fleet.{kind}", used=gibibytes(used), total=gibibytes(total)), used / total if total > 0 else 0.0


def standing(worker: Record) -> str:
    """How it stands, as one word: what keeps it from work says more than its being ready does."""
    state, breaker = worker["state"], worker.get("breaker")
    if state in ("lost", "left", "draining"):
        return str(state)
    if breaker is not None and breaker["state"] != "closed":
        return str(breaker["state"])
    if worker["stats"] is not None and not worker["stats"]["comfy_alive"] and state != "joined":
        return "silent"
    return "paused" if worker["paused"] and state != "busy" else str(state)


def worker_card(worker: Record, jobs: Mapping[str, Record], words: Words) -> dict[str, Any]:
    """The parts of a worker's card; `jobs` by id tells of the jobs it holds. bar: as of `job_card`. While its ComfyUI
    is silent nothing is known to go on there."""
    say, state = words.say, standing(worker)
    told, share = memory(readings(worker), words)
    held = sorted(worker["held"], key=lambda one: one["phase"] not in ("running", "finishing"))
    held = [] if state == "silent" else held
    first, staged = (held[0]["job_id"] if held else ""), [one["job_id"] for one in held[1:]]
    card = job_card(jobs[first], words) if first in jobs else None
    return {
        "name": worker["name"],
        "state": state,
        "badge": say(f"worker.{state}"),
        "card": _MAKER.sub("", worker["gpu"]["name"]) or say("fleet.card.unknown"),
        "memory": told,
        "share": share,
        "job": first if card is not None else "",
        "title": card["title"] if card is not None else say("fleet.else") if held else "",
        "doing": say(f"worker.{state}.idle") if not held else "",
        "bar": card["bar"] if card is not None else None,
        "percent": card["percent"] if card is not None else "",
        "staged": staged,
        "next": say("fleet.next", count=len(staged)) if staged else "",
    }


def counts(stats: Record, jobs: Iterable[Record], words: Words) -> list[str]:
    """How many jobs run, wait and are over; what is at nought is left out, but for the running ones. `jobs`: those on
    the page, for the counts of the fleet do not tell which of the jobs held by a worker wait there, and come later."""
    jobs = list(jobs)
    ready = sum(map(is_next, jobs))
    told = max(0, stats["leased"] + stats["running"] + stats["cancelling"] - ready)
    running = max(told, sum(job["state"] in _HELD for job in jobs) - ready)
    waiting = sum(job["state"] == "queued" for job in jobs) + ready
    numbers = {
        "running": running,
        "queued": max(waiting, stats["queued"] + ready - (running - told)),
        "succeeded": stats["succeeded"],
        "failed": stats["failed"],
    }
    return [words.say(f"jobs.{key}", count=f"{n:,}") for key, n in numbers.items() if n > 0 or key == "running"]
