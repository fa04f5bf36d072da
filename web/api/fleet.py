"""Workers, the queue, the counts and the templates; what an admin may do to the first two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bottle import HTTPResponse

from broker.protocol import client
from broker.protocol.ids import WORKER_NAME
from broker.runtime.clock import now
from comfyui.fields import Field
from comfyui.runnable import model_choices, stand_ins, why_not
from comfyui.template import Template
from web import views_json
from web.answers import Refusal, answered
from web.api.site import Call
from web.history import STEP_MS
from web.link import BrokerSilent
from web.views_json import Json
from web.words import Words

#: Workers whose history one request tells: 1.2 MB of JSON, 40 ms to write.
MAX_HISTORIES: Final = 50


def workers(call: Call) -> HTTPResponse:
    """GET /api/v1/workers"""
    if not call.site.hub.connected:
        raise BrokerSilent("the broker is away")
    return answered({"workers": call.site.hub.workers(call.viewer.scope)})


def history(call: Call) -> HTTPResponse:
    """GET /api/v1/workers/history"""
    hub, asked = call.site.hub, call.query("names").get("names")
    names = sorted(one["name"] for one in hub.workers(None))[:MAX_HISTORIES] if asked is None else asked.split(",")
    if len(names) > MAX_HISTORIES:
        raise Refusal(400, "bad_query", f"names has {len(names)} workers; ask for {MAX_HISTORIES} at a time")
    return answered(
        {"now_ms": now().utc_ms, "step_ms": STEP_MS, "workers": {name: hub.history.of(name) for name in names}}
    )


def stats(call: Call) -> HTTPResponse:
    """GET /api/v1/stats"""
    return answered(views_json.fleet(call.site.link.ask(client.StatisticsReply, client.Statistics).stats))


def drain(call: Call, name: str) -> HTTPResponse:
    """POST /api/v1/workers/{name}/drain"""
    return _done(call, client.DrainWorker, _worker(name))


def pause(call: Call, name: str) -> HTTPResponse:
    """POST /api/v1/workers/{name}/pause"""
    return _done(call, client.Pause, _worker(name))


def resume(call: Call, name: str) -> HTTPResponse:
    """POST /api/v1/workers/{name}/resume"""
    return _done(call, client.Resume, _worker(name))


def probe(call: Call, name: str) -> HTTPResponse:
    """POST /api/v1/workers/{name}/probe"""
    return _done(call, client.ProbeWorker, _worker(name))


def restart(call: Call, name: str) -> HTTPResponse:
    """POST /api/v1/workers/{name}/restart"""
    return _done(call, client.RestartWorker, _worker(name))


def queue(call: Call) -> HTTPResponse:
    """GET /api/v1/queue"""
    owner = call.viewer.scope if call.viewer.scope is not None else ""
    return answered(views_json.queue(call.site.link.ask(client.LoadReply, client.Load, owner=owner)))


def pause_all(call: Call) -> HTTPResponse:
    """POST /api/v1/queue/pause"""
    return _done(call, client.Pause, "")


def resume_all(call: Call) -> HTTPResponse:
    """POST /api/v1/queue/resume"""
    return _done(call, client.Resume, "")


def _done(call: Call, request: type[Any], worker: str) -> HTTPResponse:
    call.no_body()
    call.site.link.ask(client.Done, request, worker=worker)
    return answered({"done": True}, 202)


def _worker(name: str) -> str:
    if WORKER_NAME.fullmatch(name) is None:
        raise Refusal(404, "not_found", f"no worker is called {name[:63]!r}")
    return name


def templates(call: Call) -> HTTPResponse:
    """GET /api/v1/templates"""
    return answered({"templates": template_views(call)})


def template(call: Call, name: str) -> HTTPResponse:
    """GET /api/v1/templates/{name}"""
    found = call.site.templates.get(name)
    if found is None:
        have = ", ".join(call.site.templates)
        raise Refusal(404, "not_found", f"there is no template {name[:100]!r}; there are {have}")
    return answered(_template(found, call.site.abilities.object_info(), call.words))


def template_views(call: Call) -> list[Json]:
    """Every template as the page shows it; with what is known when the broker is silent."""
    try:
        object_info = call.site.abilities.object_info()
    except BrokerSilent:
        object_info = None
    return [_template(found, object_info, call.words) for found in call.site.templates.values()]


def _template(found: Template, object_info: Mapping[str, object] | None, words: Words) -> Json:
    """A template as the fleet could run it now; while no worker is there it counts as runnable, since a job waits."""
    models = stand_ins(found, object_info) if object_info is not None else {}
    why = why_not(found, object_info) if object_info is not None else ""
    return {
        "name": found.name,
        "title": words.term(found.title),
        "description": words.term(found.description),
        "fields": [_field(found, field, models, object_info, words) for field in found.fields],
        "runnable": not why,
        "why_not": why,
    }


def _field(
    found: Template,
    field: Field,
    models: Mapping[str, str],
    object_info: Mapping[str, object] | None,
    words: Words,
) -> Json:
    offered = model_choices(found, field, object_info) if object_info is not None else ()
    choices = list(offered if offered else field.choices)
    return {
        "key": field.key,
        "label": words.term(field.label),
        "type": field.type,
        "default": models.get(field.key, field.default),
        "min": field.min,
        "max": field.max,
        "step": field.step,
        "help": words.term(field.help),
        "group": words.term(field.group),
        "choices": choices if choices else None,
    }
