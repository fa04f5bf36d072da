"""Records as the API gives them to the page: plain ones to vary, and strategies for any."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from web.describe import GIB
from web.words import ENGLISH

Json = dict[str, Any]

STATES = ("queued", "leased", "running", "cancelling", "succeeded", "failed", "cancelled")
MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`&amp;<!--"


def job(**changes: Any) -> Json:
    return {
        "id": "11111111-1111-4111-8111-111111111111",
        "state": "queued",
        "owner": "local",
        "title": "a lighthouse at dusk",
        "template": "text-to-image",
        "labels": [],
        "priority": 0,
        "created_ms": 1_000_000,
        "started_ms": None,
        "finished_ms": None,
        "attempt": 0,
        "burnt": 0,
        "worker": None,
        "phase": None,
        "progress": None,
        "error": None,
        "timings": None,
        "outputs": [],
        "group": None,
        "can": {"cancel": True, "retry": False},
        **changes,
    }


def running(**changes: Any) -> Json:
    step = {
        "kind": "step",
        "node_id": "3",
        "node_type": "KSampler",
        "value": 5,
        "most": 20,
        "fraction": 0.25,
        "text": "",
    }
    given = {"state": "running", "attempt": 1, "worker": "studio-1", "phase": "running", "progress": step}
    return job(**{**given, "started_ms": 1_002_000, **changes})


def succeeded(**changes: Any) -> Json:
    given = {
        "state": "succeeded",
        "attempt": 1,
        "worker": "studio-1",
        "started_ms": 1_002_000,
        "finished_ms": 1_014_480,
    }
    return job(**{**given, "outputs": [output()], "can": {"cancel": False, "retry": False}, **changes})


def failed(**changes: Any) -> Json:
    error = {
        "reason": "node_error",
        "message": "mat1 and mat2 shapes cannot be multiplied",
        "node_id": "3",
        "node_type": "KSampler",
        "traceback": "Traceback (most recent call last):\n  …",
    }
    return succeeded(
        **{"state": "failed", "error": error, "outputs": [], "can": {"cancel": False, "retry": True}, **changes}
    )


def submitted(*jobs: Json) -> list[Json]:
    """These jobs as those of one submit."""
    return [{**one, "group": {"id": "g", "index": at, "size": len(jobs)}} for at, one in enumerate(jobs)]


def output(**changes: Any) -> Json:
    given = {"name": "a_00001_.png", "node_id": "9", "kind": "output", "media_type": "image/png"}
    return {**given, "sha256": "ab" * 32, "size_bytes": 1_400_000, "url": "/api/v1/files/" + "ab" * 32, **changes}


def worker(**changes: Any) -> Json:
    return {
        "name": "studio-1",
        "state": "ready",
        "paused": False,
        "simulated": False,
        "version": "0.1.0",
        "comfyui_version": "0.3.60",
        "gpu": {"name": "NVIDIA GeForce RTX 4090", "kind": "cuda", "vram_total_bytes": 24 * GIB},
        "stats": readings(),
        "labels": [],
        "breaker": {"state": "closed", "why": "", "since_ms": 0},
        "can": {"probe": True, "restart": False},
        "held": [],
        "succeeded": 0,
        "failed": 0,
        "since_ms": 0,
        **changes,
    }


#: Of a worker whose ComfyUI has never answered.
UNKNOWN_CARD: Json = {"name": "", "kind": "", "vram_total_bytes": 0}


def readings(**changes: Any) -> Json:
    given = {"gpu_busy": 0.97, "vram_free_bytes": 10 * GIB, "vram_total_bytes": 24 * GIB, "gpu_celsius": 64}
    ram = {
        "ram_free_bytes": 20 * GIB,
        "ram_total_bytes": 64 * GIB,
        "disk_free_bytes": 80 * GIB,
        "cpu_busy": 0.1,
        "comfy_queue": 1,
    }
    return {**given, "gpu_watts": 300, **ram, "comfy_alive": True, "comfy_fault": "", **changes}


def stats(**changes: Any) -> Json:
    return {
        **dict.fromkeys(STATES, 0),
        "workers": 0,
        "paused": False,
        "disk_full": False,
        "oldest_queued_ms": None,
        "uptime_ms": 1,
        **changes,
    }


def snapshot(**changes: Any) -> Json:
    return {"type": "snapshot", "serial": 0, "jobs": [], "workers": [], "stats": stats(), "connected": True, **changes}


def field(key: str, kind: str, **changes: Any) -> Json:
    given = {"key": key, "label": key.title(), "type": kind, "default": None, "min": None, "max": None, "step": None}
    return {**given, "help": "", "group": "", "choices": None, **changes}


def template(*fields: Json, **changes: Any) -> Json:
    given = {"name": "text-to-image", "title": "Text to image", "description": "", "fields": list(fields)}
    needs: Json = {"nodes": [], "models": []}
    return {**given, "needs": needs, "runnable": True, "why_not": "", **changes}


# ---- any record

_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_MS = st.none() | st.integers(0, 10**8)
_BYTES = st.integers(0, 200 * GIB)
_REASONS = [key.removeprefix("reason.") for key in ENGLISH.sentences if key.startswith("reason.")] + ["from_the_future"]

_PROGRESS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(("started", "node", "step", "text", "preview")),
        "node_id": _TEXT,
        "node_type": _TEXT,
        "value": st.integers(0, 99),
        "most": st.integers(0, 99),
        "fraction": st.floats(0, 1),
        "text": _TEXT,
    }
)
_ERROR = st.fixed_dictionaries(
    {"reason": st.sampled_from(_REASONS), "message": _TEXT, "node_id": _TEXT, "node_type": _TEXT, "traceback": _TEXT}
)
_OUTPUT = st.builds(
    output,
    url=_TEXT,
    kind=st.sampled_from(("output", "temp")),
    media_type=st.sampled_from(("image/png", "image/webp", "video/mp4")),
)

jobs = st.builds(
    job,
    id=st.uuids().map(str),
    state=st.sampled_from(STATES),
    title=_TEXT,
    priority=st.integers(-9, 9),
    created_ms=st.integers(0, 10**8),
    started_ms=_MS,
    finished_ms=_MS,
    attempt=st.integers(0, 4),
    burnt=st.integers(0, 3),
    worker=st.none() | st.just("studio-1"),
    phase=st.sampled_from((None, "staging", "staged", "running", "finishing")),
    progress=st.none() | _PROGRESS,
    error=st.none() | _ERROR,
    outputs=st.lists(_OUTPUT, max_size=3),
    why=st.sampled_from((None, "holds_models", "from_the_future")),
    can=st.fixed_dictionaries({"cancel": st.booleans(), "retry": st.booleans()}),
)

workers = st.builds(
    worker,
    state=st.sampled_from(("joined", "ready", "busy", "draining", "lost", "left")),
    paused=st.booleans(),
    simulated=st.booleans(),
    comfyui_version=st.sampled_from(("", "0.3.60")),
    gpu=st.sampled_from(({"name": "NVIDIA L4", "kind": "cuda", "vram_total_bytes": 1}, UNKNOWN_CARD)),
    stats=st.none()
    | st.builds(
        readings,
        gpu_busy=st.none() | st.floats(0, 1),
        gpu_celsius=st.none() | st.integers(0, 99),
        vram_free_bytes=_BYTES,
        vram_total_bytes=st.just(0) | _BYTES,
        ram_free_bytes=_BYTES,
        ram_total_bytes=_BYTES,
        disk_free_bytes=st.none() | _BYTES,
        comfy_alive=st.booleans(),
        comfy_fault=_TEXT,
    ),
    resident=st.none() | st.lists(st.sampled_from(("checkpoints/a.b.safetensors", "loras/c", ".d", "é/")), max_size=6),
    jobs_per_hour=st.none() | st.floats(0, 200),
    speed=st.none() | st.floats(0.1, 4),
    contested=st.none() | st.booleans(),
    breaker=st.none()
    | st.fixed_dictionaries(
        {"state": st.sampled_from(("closed", "open", "probing")), "why": _TEXT, "since_ms": st.integers(0, 10**8)}
    ),
    can=st.none() | st.fixed_dictionaries({"probe": st.booleans(), "restart": st.booleans()}),
    held=st.lists(
        st.fixed_dictionaries(
            {
                "job_id": st.just("known") | st.just("unknown"),
                "attempt": st.just(1),
                "phase": st.sampled_from(("staging", "staged", "running", "finishing", "ended")),
            }
        ),
        max_size=3,
    ),
)
