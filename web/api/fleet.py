"""Workers, the queue and the counts, and what an admin may do to them."""

from __future__ import annotations

from typing import Any, Final

from bottle import HTTPResponse

from broker.protocol import client
from broker.protocol.ids import WORKER_NAME
from broker.runtime.clock import now
from web import views_json
from web.answers import Refusal, answered
from web.api.site import Call
from web.history import STEP_MS
from web.link import BrokerSilent

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
