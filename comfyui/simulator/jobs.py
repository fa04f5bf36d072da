"""The late-2026 view of queue and history as jobs: GET /api/jobs, one job, and what a cancel would do.

Pure: works on queue items and history entries as queue.py keeps them.
"""

import uuid
from typing import Any

from comfyui.simulator.queue import Entry, Item

STATES = ("pending", "in_progress", "completed", "failed", "cancelled")
#: Kinds of output that a page can show.
SHOWABLE = ("images", "video", "audio", "text")


def is_job_id(value: Any) -> bool:
    """A UUID in lower case with hyphens; nothing else is taken."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def of_item(item: Item, state: str, whole: bool = False) -> Entry:
    """A job that waits or runs; `whole` adds the workflow."""
    number, prompt_id, graph, extra_data, _ = item
    job = {"id": prompt_id, "status": state, "priority": number, "outputs_count": 0, "previewable_outputs_count": 0}
    job |= _origin(extra_data)
    return job | ({"workflow": {"prompt": graph, "extra_data": extra_data}} if whole else {})


def of_entry(prompt_id: str, entry: Entry, whole: bool = False) -> Entry:
    """A job that has run; `whole` adds outputs, status and workflow."""
    number, _, graph, extra_data, _ = entry["prompt"]
    messages = {kind: data for kind, data in entry["status"]["messages"]}
    end = next((k for k in ("execution_success", "execution_error", "execution_interrupted") if k in messages), None)
    state = {"execution_error": "failed", "execution_interrupted": "cancelled"}.get(str(end), "completed")
    files = [
        (node_id, kind, file)
        for node_id, shown in entry["outputs"].items()
        for kind, files in shown.items()
        if isinstance(files, list)
        for file in files
        if isinstance(file, dict)
    ]
    showable = [(node_id, kind, file) for node_id, kind, file in files if kind in SHOWABLE]
    job: Entry = {"id": prompt_id, "status": state, "priority": number, **_origin(extra_data)}
    job |= {"outputs_count": len(files), "previewable_outputs_count": len(showable)}
    if "execution_start" in messages:
        job["execution_start_time"] = messages["execution_start"]["timestamp"]
    if end is not None:
        job["execution_end_time"] = messages[end]["timestamp"]
    if state == "failed":
        job["execution_error"] = messages["execution_error"]
    if showable:
        saved = [found for found in showable if found[2].get("type") == "output"]
        node_id, kind, file = (saved or showable)[0]
        job["preview_output"] = {**file, "nodeId": node_id, "mediaType": kind}
    if whole:
        job |= {"outputs": entry["outputs"], "execution_status": entry["status"]}
        job["workflow"] = {"prompt": graph, "extra_data": extra_data}
    return job


def _origin(extra_data: Entry) -> Entry:
    workflow_id = extra_data.get("extra_pnginfo", {}).get("workflow", {}).get("id")
    found = {"create_time": extra_data.get("create_time"), "workflow_id": workflow_id}
    return {key: value for key, value in found.items() if value is not None}


def all_jobs(running: list[Item], waiting: list[Item], history: dict[str, Entry]) -> list[Entry]:
    return [
        *(of_item(item, "in_progress") for item in running),
        *(of_item(item, "pending") for item in waiting),
        *(of_entry(prompt_id, entry) for prompt_id, entry in history.items()),
    ]


def page(jobs: list[Entry], query: dict[str, str]) -> Entry:
    """One answer to GET /api/jobs. Raises ValueError with the text of a 400."""
    wanted = [state.strip().lower() for state in query.get("status", "").split(",") if state.strip()]
    wrong = [state for state in wanted if state not in STATES]
    if wrong:
        raise ValueError(f"Invalid status value(s): {', '.join(wrong)}. Valid values: {', '.join(STATES)}")
    order_by, direction = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    if order_by not in ("created_at", "execution_duration"):
        raise ValueError("sort_by must be 'created_at' or 'execution_duration'")
    if direction not in ("asc", "desc"):
        raise ValueError("sort_order must be 'asc' or 'desc'")
    limit = _whole(query, "limit")
    if limit is not None and limit <= 0:
        raise ValueError("limit must be a positive integer")
    offset = max(0, _whole(query, "offset") or 0)
    chosen = [job for job in jobs if not wanted or job["status"] in wanted]
    if "workflow_id" in query:
        chosen = [job for job in chosen if job.get("workflow_id") == query["workflow_id"]]
    chosen.sort(key=_created if order_by == "created_at" else _duration, reverse=direction == "desc")
    shown = chosen[offset:] if limit is None else chosen[offset : offset + limit]
    total = len(chosen)
    more = offset + len(shown) < total
    return {"jobs": shown, "pagination": {"offset": offset, "limit": limit, "total": total, "has_more": more}}


def _whole(query: dict[str, str], name: str) -> int | None:
    try:
        return int(query[name]) if name in query else None
    except ValueError:
        raise ValueError(f"{name} must be an integer") from None


def _created(job: Entry) -> int:
    return int(job.get("create_time", 0))


def _duration(job: Entry) -> int:
    return int(job.get("execution_end_time", 0)) - int(job.get("execution_start_time", 0))
