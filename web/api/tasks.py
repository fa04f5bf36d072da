"""The short face of the API: a prompt in, a task out. A task is a job of the text-to-image template."""

from __future__ import annotations

import uuid
from typing import Final

from bottle import HTTPResponse

from comfyui import strict
from web import views_json
from web.answers import Refusal, answered
from web.api import jobs, submit, wishes
from web.api.site import Call

TEMPLATE: Final = "text-to-image"
#: Key of the request -> key of the template's form; width and height make its size.
KEYS: Final = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "count": "batch",
    "steps": "steps",
    "cfg": "cfg",
    "sampler": "sampler",
    "scheduler": "scheduler",
    "seed": "seed",
    "model": "checkpoint",
}
_SIDE: Final = 1024


def generate(call: Call) -> HTTPResponse:
    """POST /api/v1/generate"""
    body = call.json()
    try:
        strict.check(body)
    except strict.StrictError as e:
        raise Refusal(400, "bad_text", f"the body, at {'.'.join(e.path)[:200]}: {e}") from e
    if unknown := sorted(body.keys() - KEYS.keys() - {"width", "height"}):
        have = ", ".join((*KEYS, "width", "height"))
        raise Refusal(422, "unknown_key", f"unknown key {unknown[0][:50]!r}; there are {have}")
    params = {KEYS[key]: value for key, value in body.items() if key in KEYS}
    sides = [body.get("width", _SIDE), body.get("height", _SIDE)]
    if not all(type(side) is int and 0 < side < 1_000_000 for side in sides):
        raise Refusal(422, "bad_size", "width and height are whole numbers of pixels")
    if "width" in body or "height" in body:
        params["size"] = f"{sides[0]}x{sides[1]}"
    key, job_id = wishes.idempotency_key(call), str(uuid.uuid4())
    reply = submit.submit(
        call,
        wishes.Wish(
            id=job_id,
            idempotency_key=key,
            title=wishes.title_of(params),
            template=TEMPLATE,
            labels=(),
            priority=0,
            files=(),
            jobs=wishes.filled(call, TEMPLATE, params, wishes.draw(call, key if key else job_id)),
        ),
    )
    task = views_json.task(reply.job)
    location = {"Location": f"/api/v1/tasks/{reply.job.job_id}"}
    return answered({"taskId": task["taskId"], "status": task["status"]}, 200 if reply.existed else 202, location)


def get(call: Call, task_id: str) -> HTTPResponse:
    """GET /api/v1/tasks/{id}"""
    return answered(views_json.task(jobs.owned(call, task_id).job))


def cancel(call: Call, task_id: str) -> HTTPResponse:
    """DELETE /api/v1/tasks/{id}"""
    return answered(views_json.task(jobs.cancelled(call, task_id).job), 202)
