"""What the fleet page says about a worker: from the API's record to the words of its card and row.

Pure, and knows no HTML. static/standing.js says the same in the browser, word for word: a test runs both over the same
records. What grows older by itself is the browser's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from web import describe
from web.describe import Record
from web.words import Words

#: What can be done to a worker, in the order of its buttons.
VERBS: Final = ("pause", "resume", "drain", "probe", "restart")
#: Resident models named on a card; the others are counted.
MODELS: Final = 4


def facts(worker: Record, jobs: Mapping[str, Record], words: Words, *, admin: bool) -> dict[str, Any]:
    """The parts of a worker's card, more than the studio shows of it; `jobs` by id tells of the jobs it holds."""
    say, card = words.say, describe.worker_card(worker, jobs, words)
    titles = [
        describe.job_card(jobs[one], words)["title"] if one in jobs else say("fleet.else") for one in card["staged"]
    ]
    models = worker.get("resident") or []
    trouble = _trouble(worker, words)
    doing = describe.status(jobs[card["job"]], words) if card["job"] else "" if trouble else card["doing"]
    return {
        **card,
        "simulated": worker["simulated"],
        "busy": _busy(worker, words),
        "load": _load(worker),
        "heat": _heat(describe.readings(worker), words),
        "doing": doing,
        "staged": say("fleet.staged", titles=", ".join(titles)) if titles else "",
        "models": [_model(name) for name in models[:MODELS]],
        "more": say("fleet.models.more", count=len(models) - MODELS) if len(models) > MODELS else "",
        "rate": _tenths(worker["jobs_per_hour"]) if worker.get("jobs_per_hour") is not None else "",
        "failed": str(worker["failed"]),
        "tally": _tally(worker, words),
        "trouble": trouble,
        "labels": list(worker["labels"]),
        "version": _version(worker, words),
        "host": _host(describe.readings(worker), words),
        "acts": {verb: _barred(verb, worker, words, admin=admin) for verb in VERBS if _fits(verb, worker)},
    }


def _load(worker: Record) -> float:
    """How hard the card works, 0 to 1; where no driver tells, whether a job runs."""
    stats = worker["stats"]
    if stats is not None and stats["gpu_busy"] is not None:
        return float(stats["gpu_busy"])
    return 1.0 if any(held["phase"] in ("running", "finishing") for held in worker["held"]) else 0.0


def _busy(worker: Record, words: Words) -> str:
    stats = describe.readings(worker)
    if stats is None:
        return ""
    if stats["gpu_busy"] is not None:
        return words.say("fleet.busy", percent=int(stats["gpu_busy"] * 100))
    return words.say("fleet.working" if _load(worker) else "fleet.resting")


def _heat(stats: Record | None, words: Words) -> str:
    if stats is None:
        return ""
    parts = []
    if stats["gpu_celsius"] is not None:
        parts.append(words.say("fleet.warm", celsius=stats["gpu_celsius"]))
    if stats["gpu_watts"] is not None:
        parts.append(words.say("fleet.power", watts=stats["gpu_watts"]))
    return " · ".join(parts)


def _model(name: str) -> dict[str, str]:
    return {"short": describe.model_name(name), "name": name}


def _tally(worker: Record, words: Words) -> str:
    rate, speed = worker.get("jobs_per_hour"), worker.get("speed")
    parts = [words.say("fleet.rate", count=_tenths(rate))] if rate is not None else []
    parts.append(words.say("jobs.succeeded", count=worker["succeeded"]))
    if worker["failed"]:
        parts.append(words.say("jobs.failed", count=worker["failed"]))
    if speed is not None and speed != 1:
        parts.append(words.say("fleet.speed", times=_tenths(speed)))
    return " · ".join(parts)


def _tenths(number: float) -> str:
    """One decimal below ten, none above: 0.4, 1, 9.5, 24."""
    tenths = int(number * 10 + 0.5)
    return f"{tenths // 10}.{tenths % 10}" if tenths < 100 and tenths % 10 else str(tenths // 10)


def _trouble(worker: Record, words: Words) -> str:
    """What keeps it from work and will not pass by itself, "" for nothing."""
    breaker = worker.get("breaker")
    if breaker is not None and breaker["state"] != "closed":
        return words.say(f"fleet.breaker.{breaker['state']}", why=breaker["why"])
    if worker.get("contested"):
        return words.say("fleet.contested", name=worker["name"])
    return (
        words.say("fleet.silent", why=worker["stats"]["comfy_fault"]) if describe.standing(worker) == "silent" else ""
    )


def _version(worker: Record, words: Words) -> str:
    comfyui = worker["comfyui_version"]
    return words.say("fleet.version" if comfyui else "fleet.version.alone", worker=worker["version"], comfyui=comfyui)


def _host(stats: Record | None, words: Words) -> str:
    if stats is None:
        return words.say("fleet.memory.unknown")
    total, free = stats["ram_total_bytes"], stats["ram_free_bytes"]
    used = describe.gibibytes(max(0, total - free))
    said = words.say("fleet.host", used=used, total=describe.gibibytes(total), percent=int(stats["cpu_busy"] * 100))
    disk_bytes = stats["disk_free_bytes"]
    return said if disk_bytes is None else f"{said} · {words.say('fleet.disk', free=describe.gibibytes(disk_bytes))}"


def _fits(verb: str, worker: Record) -> bool:
    """Whether a button for it stands on the card at all."""
    if verb in ("pause", "resume"):
        return bool(worker["paused"]) == (verb == "resume")
    if verb == "probe":
        breaker = worker.get("breaker")
        return breaker is not None and breaker["state"] != "closed"
    return True


def _barred(verb: str, worker: Record, words: Words, *, admin: bool) -> str:
    """Why it cannot be done now, "" when it can."""
    if not admin:
        return words.say("fleet.why.admin")
    if describe.is_gone(worker):
        return words.say("fleet.why.lost")
    if verb == "drain" and worker["state"] == "draining":
        return words.say("fleet.why.draining")
    can = worker.get("can") or {}
    if verb in ("probe", "restart") and not can.get(verb, False):
        return words.say(f"fleet.why.{verb}")
    return ""
