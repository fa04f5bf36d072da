"""The records of the contract as the JSON that the API and the page show: plain dicts, one function a record.

Pure. Whatever a browser sees of a job, a worker or the counts is made here, so all faces of the API agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from broker.protocol.client import LoadReply
from broker.protocol.records import (
    Breaker,
    BreakerState,
    Expected,
    FleetStats,
    Gpu,
    JobState,
    JobView,
    Member,
    Output,
    Progress,
    Stats,
    WorkerState,
    WorkerView,
)
from broker.protocol.story import Decision, StoryLine
from web import describe
from web.words import Words

Json = dict[str, Any]
#: Made once: json.dumps makes one for each call that is not plain.
_PACKED: Final = json.JSONEncoder(separators=(",", ":"))

#: States in which a cancel still changes something.
_CANCELLABLE = (JobState.QUEUED, JobState.LEASED, JobState.RUNNING)
_RETRYABLE = (JobState.FAILED, JobState.CANCELLED)
#: What the short task view calls each state.
_TASK_STATUS = {
    JobState.QUEUED: "pending",
    JobState.LEASED: "pending",
    JobState.RUNNING: "running",
    JobState.CANCELLING: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


def packed(value: Mapping[str, Any]) -> bytes:
    """JSON without a space that is not needed, as it leaves for a browser."""
    return _PACKED.encode(value).encode()


def job(view: JobView) -> Json:
    """A Job, as every listing, event and snapshot shows it."""
    failure, timings = view.failure, view.timings
    return {
        "id": view.job_id,
        "state": view.state.value,
        "owner": view.owner,
        "title": view.title,
        "template": view.template,
        "labels": list(view.labels),
        "group": group(view.group) if view.group is not None else None,
        "priority": view.priority,
        "created_ms": view.created_utc_ms,
        "started_ms": view.started_utc_ms,
        "finished_ms": view.finished_utc_ms,
        "attempt": view.attempt,
        "burnt": view.burnt,
        "worker": view.worker if view.worker else None,
        "phase": view.phase.value if view.phase is not None else None,
        "progress": progress(view.progress) if view.progress is not None else None,
        "error": None
        if failure is None
        else {
            "reason": failure.reason.value,
            "message": failure.text,
            "node_id": failure.node_id,
            "node_type": failure.node_type,
            "traceback": failure.traceback,
        },
        "timings": None
        if timings is None
        else {
            "staging_ms": timings.staging_ms,
            "waiting_ms": timings.waiting_ms,
            "running_ms": timings.running_ms,
            "loading_ms": timings.loading_ms,
            "finishing_ms": timings.finishing_ms,
        },
        "outputs": [output(view.job_id, found) for found in view.outputs],
        "why": view.why.value if view.why is not None else None,
        "expect_ms": view.expect_ms,
        "deadline_ms": view.deadline_utc_ms,
        "pin": view.pin if view.pin else None,
        "can": {"cancel": view.state in _CANCELLABLE, "retry": view.state in _RETRYABLE},
    }


def group(found: Member) -> Json:
    return {"id": found.group_id, "index": found.index, "size": found.size}


def output(job_id: str, found: Output) -> Json:
    return {
        "name": found.name,
        "node_id": found.node_id,
        "kind": found.kind,
        "media_type": found.media_type,
        "sha256": found.sha256,
        "size_bytes": found.size_bytes,
        "url": file_url(found.sha256, job_id),
    }


def file_url(sha256: str, job_id: str) -> str:
    """Where a file of a job is fetched. The job is named so that one look-up decides whether the asker may see it."""
    return f"/api/v1/files/{sha256}?job={job_id}"


def progress(found: Progress) -> Json:
    return {
        "kind": found.kind.value,
        "node_id": found.node_id,
        "node_type": found.node_type,
        "value": found.value,
        "most": found.most,
        "fraction": found.fraction,
        "text": found.text,
    }


def worker(view: WorkerView) -> Json:
    here = view.state is not WorkerState.LOST
    return {
        "name": view.worker,
        "state": view.state.value,
        "paused": view.paused,
        "simulated": view.simulated,
        "version": view.version,
        "comfyui_version": view.comfyui_version,
        "gpu": _gpu(view.gpu),
        "stats": _stats(view.stats) if view.stats is not None else None,
        "labels": list(view.labels),
        "breaker": _breaker(view.breaker),
        "contested": view.contested,
        "held": [{"job_id": held.job_id, "attempt": held.attempt, "phase": held.phase.value} for held in view.held],
        "succeeded": view.succeeded,
        "failed": view.failed,
        "since_ms": view.since_utc_ms,
        "resident": list(view.resident),
        "jobs_per_hour": view.jobs_per_hour,
        "speed": round(view.speed, 3),
        "load_s": round(view.load_ms / 1_000, 1) if view.load_ms is not None else None,
        "can": {"probe": here and view.breaker.state is not BreakerState.PROBING, "restart": here and view.restartable},
    }


def _breaker(breaker: Breaker) -> Json:
    return {"state": breaker.state.value, "why": breaker.why, "since_ms": breaker.since_utc_ms}


def _gpu(gpu: Gpu) -> Json:
    return {"name": gpu.name, "kind": gpu.kind, "vram_total_bytes": gpu.vram_total_bytes}


def _stats(stats: Stats) -> Json:
    return {
        "gpu_busy": stats.gpu_busy,
        "vram_free_bytes": stats.vram_free_bytes,
        "vram_total_bytes": stats.vram_total_bytes,
        "gpu_celsius": stats.gpu_celsius,
        "gpu_watts": stats.gpu_watts,
        "ram_free_bytes": stats.ram_free_bytes,
        "ram_total_bytes": stats.ram_total_bytes,
        "disk_free_bytes": stats.disk_free_bytes,
        "cpu_busy": stats.cpu_busy,
        "comfy_queue": stats.comfy_queue,
        "comfy_alive": not stats.comfy_fault,
        "comfy_fault": stats.comfy_fault,
    }


def fleet(stats: FleetStats) -> Json:
    """Stats: the counts of the whole fleet."""
    return {
        "queued": stats.queued,
        "leased": stats.leased,
        "running": stats.running,
        "cancelling": stats.cancelling,
        "succeeded": stats.succeeded,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
        "workers": stats.workers,
        "paused": stats.paused,
        "disk_full": stats.disk_full,
        "oldest_queued_ms": stats.oldest_queued_utc_ms,
        "uptime_ms": stats.uptime_ms,
        "expected_error": round(stats.expected_error, 3) if stats.expected_error is not None else None,
    }


#: Stats before the broker was reached for the first time.
NO_STATS: Json = {
    **dict.fromkeys(("queued", "leased", "running", "cancelling", "succeeded", "failed", "cancelled", "workers"), 0),
    "paused": False,
    "disk_full": False,
    "oldest_queued_ms": None,
    "uptime_ms": 0,
    "expected_error": None,
}


def story(line: StoryLine, words: Words) -> Json:
    return {
        "at_ms": line.utc_ms,
        "what": line.what,
        "attempt": line.attempt,
        "burnt": line.burnt,
        "worker": line.worker if line.worker else None,
        "text": line.text,
        "decision": _decision(line.decision, words) if line.decision is not None else None,
    }


def _decision(found: Decision, words: Words) -> Json:
    decision = {
        "policy": found.policy,
        "why": found.why.value,
        "worker": found.worker,
        "waited_ms": found.waited_ms,
        "waited_for": found.waited_for if found.waited_for else None,
        "instead": found.instead if found.instead else None,
        "candidates": [
            {
                "worker": one.worker,
                "wait_ms": one.wait_ms,
                "load_ms": one.load_ms,
                "run_ms": one.run_ms,
                "finish_ms": one.wait_ms + one.load_ms + one.run_ms,
                "missing_models": list(one.missing_models),
            }
            for one in found.candidates
        ],
    }
    return {**decision, "words": describe.because(decision, words)}


def expected(found: Expected) -> Json:
    """A waiting job's place in the queue, and when it is likely to begin."""
    return {"id": found.job_id, "place": found.place, "start_ms": found.start_utc_ms}


def queue(found: LoadReply) -> Json:
    return {
        "owners": [{"owner": one.owner, "queued": one.queued, "running": one.running} for one in found.owners],
        "models": [{"models": list(one.models), "queued": one.queued, "running": one.running} for one in found.models],
        "paused": found.paused,
    }


def task(view: JobView) -> Json:
    """A job as the short face of the API shows it."""
    succeeded = view.state is JobState.SUCCEEDED
    pictures = [found for found in view.outputs if found.kind != "temp" and found.media_type.startswith("image/")]
    return {
        "taskId": view.job_id,
        "status": _TASK_STATUS[view.state],
        "progress": 1.0 if succeeded else view.progress.fraction if view.progress is not None else 0.0,
        "images": [file_url(found.sha256, view.job_id) for found in pictures] if succeeded else [],
        "error": view.failure.text if view.failure is not None else None,
    }
