"""Jobs that exist: look, cancel, retry, delete, move, follow. Each route checks first whose job it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from bottle import HTTPResponse

from broker.protocol import client
from broker.protocol.ids import WORKER_NAME
from broker.protocol.records import JobState, JobView
from web import views_json
from web.answers import COMMON, JSON_TYPE, Refusal, answered, disposition, status_line
from web.api.site import Call, job_id_of, no_job
from web.link import BrokerRefused, BrokerSilent
from web.viewer import may_see
from web.views_json import Json

#: Requests of one owner who is not an admin that follow a job.
MAX_OF_ONE_OWNER: Final = 50
#: A comment is sent after so much silence, so that proxies keep the connection and a gone client is noticed.
SSE_SILENCE_S: Final = 15.0
_ENDED: Final = frozenset(state.value for state in JobState if state.terminal)


def owned(call: Call, text: str, *, full: bool = False) -> client.JobReply:
    """The job with the id in `text`, if the caller may see it; for everybody else there is no such job."""
    job_id = job_id_of(text)
    reply = call.site.link.ask(client.JobReply, client.Get, job_id=job_id, full=full)
    if not may_see(call.viewer.scope, reply.job.owner):
        raise no_job(job_id)
    return reply


def get(call: Call, job_id: str) -> HTTPResponse:
    """GET /api/v1/jobs/{id}"""
    reply = owned(call, job_id, full=True)
    workflow = json.loads(reply.workflow)
    form = json.loads(reply.form) if reply.form else None
    params = form["params"] if form is not None else None
    return answered({**views_json.job(reply.job), "workflow": workflow, "form": form, "params": params})


def workflow(call: Call, job_id: str) -> HTTPResponse:
    """GET /api/v1/jobs/{id}/workflow: as it was submitted, byte for byte."""
    reply = owned(call, job_id, full=True)
    name = f"{file_stem(reply.job)}.json"
    headers = {**COMMON, "Content-Type": JSON_TYPE, "Cache-Control": "no-store"}
    headers["Content-Disposition"] = disposition(name, attachment=True)
    return HTTPResponse(reply.workflow, status_line(200), headers)


def file_stem(job: JobView) -> str:
    """What files of a job are called: its title as far as every system takes it in a name, and the end of its id: those
    that begin with the time of their making begin alike."""
    title = "-".join(re.findall(r"\w+", job.title))[:60].strip("-_")
    return f"{title}-{job.job_id[-8:]}" if title else job.job_id[-8:]


def delete(call: Call, job_id: str) -> HTTPResponse:
    """DELETE /api/v1/jobs/{id}: cancel it, or with forget=yes delete what is over."""
    query = call.query("forget")
    if query.get("forget", "yes") != "yes":
        raise Refusal(400, "bad_query", "forget is yes, or left out to cancel the job")
    if query:
        deleted(call, job_id)
        return answered({"done": True})
    return answered(views_json.job(cancelled(call, job_id).job), 202)


def deleted(call: Call, job_id: str) -> client.Done:
    owned(call, job_id)
    return call.site.link.ask(client.Done, client.Delete, job_id=job_id)


def cancelled(call: Call, job_id: str) -> client.JobReply:
    owned(call, job_id)
    return call.site.link.ask(client.JobReply, client.Cancel, job_id=job_id)


def retry(call: Call, job_id: str) -> HTTPResponse:
    """POST /api/v1/jobs/{id}/retry"""
    call.no_body()
    return answered(views_json.job(retried(call, job_id).job), 202)


def retried(call: Call, job_id: str) -> client.JobReply:
    owned(call, job_id)
    return call.site.link.ask(client.JobReply, client.Retry, job_id=job_id)


def story(call: Call, job_id: str) -> HTTPResponse:
    """GET /api/v1/jobs/{id}/story"""
    owned(call, job_id)
    reply = call.site.link.ask(client.StoryReply, client.Story, job_id=job_id)
    return answered({"lines": [views_json.story(line, call.words) for line in reply.lines]})


def pin(call: Call, job_id: str) -> HTTPResponse:
    """POST /api/v1/jobs/{id}/pin"""
    body = call.json()
    worker = body.get("worker")
    if body.keys() != {"worker"} or not isinstance(worker, str) or (worker and WORKER_NAME.fullmatch(worker) is None):
        raise Refusal(422, "bad_worker", 'want {"worker": NAME}, or "" to lift the pin')
    return _amended(call, client.Pin, job_id_of(job_id), worker=worker)


def reorder(call: Call, job_id: str) -> HTTPResponse:
    """POST /api/v1/jobs/{id}/priority"""
    body = call.json()
    priority = body.get("priority")
    if body.keys() != {"priority"} or type(priority) is not int or not -100 <= priority <= 100:
        raise Refusal(422, "bad_priority", 'want {"priority": a whole number from -100 to 100}')
    return _amended(call, client.Reorder, job_id_of(job_id), priority=priority)


def _amended(call: Call, request: type[Any], job_id: str, **change: Any) -> HTTPResponse:
    reply = call.site.link.ask(client.JobReply, request, job_id=job_id, **change)
    return answered(views_json.job(reply.job), 202)


def events(call: Call, job_id: str) -> HTTPResponse:
    """GET /api/v1/jobs/{id}/events: the job as it is now, then each time it changed, until it has ended."""
    old = call.site.hub.job(job_id)
    first = views_json.job(owned(call, job_id).job)
    seen = call.site.hub.job(job_id)
    if seen is not None and seen["state"] in _ENDED and first["state"] not in _ENDED:
        # It has ended since the broker answered; or it was asked for again, and the hub has not heard of that yet.
        old, first = seen, views_json.job(owned(call, job_id).job)
    watch, viewer = call.site.watch, call.viewer
    theirs = 0 if viewer.admin else watch.of(viewer.owner)
    if len(watch) >= call.site.settings.max_sockets or theirs >= MAX_OF_ONE_OWNER:
        raise Refusal(503, "busy", "too many requests follow jobs", headers={"Retry-After": "5"})
    headers = {**COMMON, "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
    return HTTPResponse(_follow(call, first, old), "200 OK", {**headers, "X-Accel-Buffering": "no"})


def _follow(call: Call, job: Json, old: Json | None) -> Iterator[bytes]:
    """old: what the hub knew before the broker said how the job is."""
    with call.site.watch.on(job["id"], call.viewer.owner) as changed:
        told = None
        while True:
            seen = call.site.hub.job(job["id"])
            if seen is not None:
                job = seen if seen is not old else job
            elif told is not None:
                found = _as_it_is(call, job)
                if found is None:
                    return
                job = found
            if job != told:
                told = job
                yield b"event: job\ndata: %s\n\n" % json.dumps(job, separators=(",", ":")).encode()
            if job["state"] in _ENDED:
                return
            if call.site.watch.ended or call.site.gate.identify(call.environ) != call.viewer:
                return  # the process ends, or they signed out
            changed.clear()
            if not changed.wait(SSE_SILENCE_S):
                yield b": still here\n\n"


def _as_it_is(call: Call, job: Json) -> Json | None:
    """A job that the hub does not know of (any more): what became of it may have been missed. None when it is gone."""
    try:
        return views_json.job(owned(call, job["id"]).job)
    except (Refusal, BrokerRefused):
        return None
    except BrokerSilent:
        return job
