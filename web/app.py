"""Every route of the web process in one table, and what happens around each: who may call it, and what its errors say.

Bottle finds the route; nothing else of it is used but its responses. Its own way from a request to an answer, through
objects of each thread, costs as much as all the rest here. Decides nothing: the handlers in web/api do.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import bottle
from bottle import HTTPError, HTTPResponse

from web.answers import COMMON, Refusal, answered, refused, status_line
from web.api import bulk, files, fleet, jobs, lists, submit, tasks, templates, uploads, zips
from web.api import gallery as gallery_list
from web.api.site import Call, Site, words_of
from web.assets import asset
from web.auth import has_bearer, has_cookie, is_same_origin, set_cookie
from web.link import BrokerRefused, BrokerSilent, OutOfContract
from web.pages import fleet as fleet_page
from web.pages import frame, studio
from web.pages import gallery as gallery_page
from web.pages import templates as templates_page
from web.viewer import Viewer
from web.words import COOKIE, LANGUAGES, Words

log = logging.getLogger(__name__)

OPENAPI: Final = Path(__file__).parent / "openapi.json"
ANYBODY: Final = Viewer("", False)
#: Packed is how a script may be sent, unless that is ruled out. Source: RFC 9110, 12.5.3.
_GZIP: Final = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?(?![.\d]))")
#: How long a browser remembers the language that was picked.
LANGUAGE_S: Final = 365 * 24 * 3600
#: Where switching the language leads back to: a place of our own, with what stands after ? and #.
_OWN_PLACE: Final = re.compile(r"/(?!/)[\w./~?=&%#+-]{0,2000}", re.ASCII)
#: How the broker's refusals are answered; anything else is a conflict with what it holds.
BROKER_STATUS: Final = {
    "not_found": 404,
    "conflict": 409,
    "finished": 409,
    "invalid": 422,
    "no_worker": 422,
    "quota": 429,
    "full": 503,
    "disk_full": 507,
}


class Who(Enum):
    ANYBODY = "anybody"
    SIGNED_IN = "signed in"
    ADMIN = "admin"


Handler = Callable[..., HTTPResponse]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str  # Bottle's form; the API's own begin with /api/v1
    handler: Handler
    who: Who = Who.SIGNED_IN

    @property
    def is_page(self) -> bool:
        """Whether a person goes there, so that errors and the way to the sign-in are pages."""
        return not self.path.startswith(("/api/", "/healthz"))


# ---- the pages


def index(call: Call) -> HTTPResponse:
    """GET /"""
    snapshot = call.site.hub.snapshot(call.viewer.scope)
    around = frame.framed(call.viewer, call.words, snapshot)
    return _html(studio.page(around, snapshot, templates.views(call)))


def gallery(call: Call) -> HTTPResponse:
    """GET /gallery"""
    filters = {name: value for name, value in call.query(*gallery_page.FILTERS, "after").items() if value}
    after = filters.pop("after", "")
    found = gallery_list.first(call, filters, after)
    offers = gallery_list.offers(call, ask=found is not None)
    return _html(gallery_page.page(_frame(call), found, filters, offers, after))


def fleet_view(call: Call) -> HTTPResponse:
    """GET /fleet"""
    snapshot = call.site.hub.snapshot(call.viewer.scope)
    return _html(fleet_page.page(frame.framed(call.viewer, call.words, snapshot), snapshot))


def templates_view(call: Call) -> HTTPResponse:
    """GET /templates"""
    workers = bool(call.site.hub.abilities())
    return _html(templates_page.page(_frame(call), templates.views(call), workers=workers))


def _frame(call: Call) -> frame.Frame:
    return frame.framed(call.viewer, call.words, call.site.hub.snapshot(call.viewer.scope))


def login(call: Call) -> HTTPResponse:
    """GET /login"""
    return _html(frame.login("", call.words))


def sign_in(call: Call) -> HTTPResponse:
    """POST /login: the form of the sign-in page."""
    form = _form(call)
    address = call.environ["REMOTE_ADDR"]
    wait_ms = call.site.gate.wait_ms(address)
    cookie = call.site.gate.sign_in(form.get("token", "").strip(), address)
    if cookie is None and wait_ms > 0:
        wait_s = wait_ms // 1000 + 1
        text = call.words.say("login.wait", s=wait_s)
        return _html(frame.login(text, call.words), 429, {"Retry-After": str(wait_s)})
    if cookie is None:
        return _html(frame.login(call.words.say("login.wrong"), call.words), 401)
    return _see("/", {"Set-Cookie": set_cookie(cookie, call.environ)})


def language(call: Call) -> HTTPResponse:
    """POST /language: the button that switches it, on every page."""
    form = _form(call)
    picked, back = form.get("lang", ""), form.get("back", "/")
    if picked not in LANGUAGES:
        raise Refusal(422, "bad_language", f"lang is one of {', '.join(LANGUAGES)}")
    cookie = f"{COOKIE}={picked}; Path=/; Max-Age={LANGUAGE_S}; HttpOnly; SameSite=Lax"
    return _see(back if _OWN_PLACE.fullmatch(back) else "/", {"Set-Cookie": cookie})


def _form(call: Call) -> dict[str, str]:
    """The fields of a submitted form. Raises Refusal."""
    if call.content_type != "application/x-www-form-urlencoded":
        raise Refusal(415, "want_form", "this takes what a form sends")
    try:
        return dict(parse_qsl(call.body(4 << 10).decode("latin-1"), max_num_fields=10))
    except ValueError as e:
        raise Refusal(400, "bad_form", f"the form cannot be read: {e}") from e


def sign_out(call: Call) -> HTTPResponse:
    """POST /logout"""
    call.site.gate.sign_out(call.environ)
    return _see("/login", {"Set-Cookie": set_cookie("", call.environ)})


def static(call: Call, path: str) -> HTTPResponse:
    """GET /static/…"""
    found = asset(path)
    if found is None:
        raise Refusal(404, "not_found", "there is no such file")
    headers = {**COMMON, "Cache-Control": "no-cache", "ETag": found.etag, "Vary": "Accept-Encoding"}
    if call.header("If-None-Match") == found.etag:
        return HTTPResponse(b"", status_line(304), headers)
    headers["Content-Type"] = found.media_type
    if _GZIP.search(call.header("Accept-Encoding")) is None:
        return HTTPResponse(found.data, status_line(200), headers)
    return HTTPResponse(found.packed, status_line(200), {**headers, "Content-Encoding": "gzip"})


# ---- about the process


def openapi(call: Call) -> HTTPResponse:
    """GET /api/v1/openapi.json"""
    headers = {**COMMON, "Content-Type": "application/json", "Cache-Control": "no-cache"}
    return HTTPResponse(OPENAPI.read_bytes(), status_line(200), headers)


def healthz(call: Call) -> HTTPResponse:
    """GET /healthz: this process lives. That the broker is away is told beside it: no reason to restart this one."""
    return answered({"status": "ok", "connected": call.site.hub.connected})


ROUTES: Final = (
    Route("GET", "/", index),
    Route("GET", "/gallery", gallery),
    Route("GET", "/fleet", fleet_view),
    Route("GET", "/templates", templates_view),
    Route("POST", "/language", language, Who.ANYBODY),
    Route("GET", "/login", login, Who.ANYBODY),
    Route("POST", "/login", sign_in, Who.ANYBODY),
    Route("POST", "/logout", sign_out, Who.ANYBODY),
    Route("GET", "/static/<path:path>", static, Who.ANYBODY),
    Route("GET", "/healthz", healthz, Who.ANYBODY),
    Route("GET", "/api/v1/openapi.json", openapi, Who.ANYBODY),
    Route("POST", "/api/v1/jobs", submit.post),
    Route("GET", "/api/v1/jobs", lists.listing),
    Route("GET", "/api/v1/jobs/zip", zips.get),
    Route("GET", "/api/v1/jobs/<job_id>", jobs.get),
    Route("DELETE", "/api/v1/jobs/<job_id>", jobs.delete),
    Route("POST", "/api/v1/jobs/bulk", bulk.post),
    Route("POST", "/api/v1/jobs/zip", zips.post),
    Route("GET", "/api/v1/jobs/<job_id>/workflow", jobs.workflow),
    Route("POST", "/api/v1/jobs/<job_id>/retry", jobs.retry),
    Route("GET", "/api/v1/jobs/<job_id>/events", jobs.events),
    Route("GET", "/api/v1/jobs/<job_id>/story", jobs.story),
    Route("POST", "/api/v1/jobs/<job_id>/pin", jobs.pin, Who.ADMIN),
    Route("POST", "/api/v1/jobs/<job_id>/priority", jobs.reorder, Who.ADMIN),
    Route("GET", "/api/v1/files/<sha256>", files.get),
    Route("POST", "/api/v1/uploads", uploads.post),
    Route("GET", "/api/v1/templates", templates.listing),
    Route("POST", "/api/v1/templates", templates.save, Who.ADMIN),
    Route("POST", "/api/v1/templates/draft", templates.draft, Who.ADMIN),
    Route("GET", "/api/v1/templates/<name>", templates.get),
    Route("DELETE", "/api/v1/templates/<name>", templates.delete, Who.ADMIN),
    Route("GET", "/api/v1/workers", fleet.workers),
    Route("GET", "/api/v1/workers/history", fleet.history),
    Route("POST", "/api/v1/workers/<name>/drain", fleet.drain, Who.ADMIN),
    Route("POST", "/api/v1/workers/<name>/pause", fleet.pause, Who.ADMIN),
    Route("POST", "/api/v1/workers/<name>/resume", fleet.resume, Who.ADMIN),
    Route("POST", "/api/v1/workers/<name>/probe", fleet.probe, Who.ADMIN),
    Route("POST", "/api/v1/workers/<name>/restart", fleet.restart, Who.ADMIN),
    Route("GET", "/api/v1/queue", fleet.queue),
    Route("POST", "/api/v1/queue/pause", fleet.pause_all, Who.ADMIN),
    Route("POST", "/api/v1/queue/resume", fleet.resume_all, Who.ADMIN),
    Route("GET", "/api/v1/labels", lists.labels),
    Route("GET", "/api/v1/stats", fleet.stats),
    Route("POST", "/api/v1/generate", tasks.generate),
    Route("GET", "/api/v1/tasks/<task_id>", tasks.get),
    Route("DELETE", "/api/v1/tasks/<task_id>", tasks.cancel),
)


def application(site: Site) -> Callable[..., Iterable[bytes]]:
    """The WSGI application."""
    router = bottle.Router()
    for route in ROUTES:
        router.add(route.path, route.method, _guarded(site, route))

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["PATH_INFO"] = environ["PATH_INFO"].encode("latin-1").decode()
        try:
            handler, named = router.match(environ)
            found = handler(environ, **named)
        except HTTPError as e:
            found = _not_routed(environ, e)
        body = [found.body] if isinstance(found.body, bytes) else found.body
        if environ["REQUEST_METHOD"] == "HEAD":
            if isinstance(found.body, bytes):
                found.set_header("Content-Length", str(len(found.body)))
            body = []
        start_response(found.status_line, found.headerlist)
        return body

    return serve


def _guarded(site: Site, route: Route) -> Callable[..., HTTPResponse]:
    """The handler of a route with the gate before it and every error after it turned into its answer."""

    def serve(environ: Mapping[str, Any], **named: str) -> HTTPResponse:
        try:
            return route.handler(Call(site, environ, _admit(site, route, environ)), **named)
        except Refusal as e:
            return _shown(route, environ, e)
        except BrokerRefused as e:
            return _shown(route, environ, _of_broker(e))
        except OutOfContract as e:
            return _shown(route, environ, Refusal(422, "out_of_range", str(e)))
        except BrokerSilent as e:
            log.debug("no answer from the broker", extra={"fields": {"route": route.path, "why": str(e)}})
            return _shown(route, environ, Refusal(503, "broker_away", f"{e}; try again", headers={"Retry-After": "2"}))
        except Exception:
            log.exception("a request failed", extra={"fields": {"route": route.path}})
            return _shown(route, environ, Refusal(500, "internal", "this server failed; its log says why"))

    return serve


def _admit(site: Site, route: Route, environ: Mapping[str, Any]) -> Viewer:
    """Who is calling. Raises Refusal when a page of somebody else is behind it, or for whoever may not."""
    changes = route.method not in ("GET", "HEAD")
    if changes and not has_bearer(environ) and not is_same_origin(environ, must_say=has_cookie(environ)):
        raise Refusal(403, "forbidden_origin", "this request did not come from this server's own page")
    if route.who is Who.ANYBODY:
        return ANYBODY
    viewer = site.gate.identify(environ)
    if viewer is None:
        raise Refusal(401, "not_signed_in", "sign in, or send a token", headers={"WWW-Authenticate": "Bearer"})
    if route.who is Who.ADMIN and not viewer.admin:
        raise Refusal(403, "forbidden", "only an admin may do this")
    return viewer


def _of_broker(refusal: BrokerRefused) -> Refusal:
    error = refusal.error
    retry = {"Retry-After": str(-(-error.retry_after_ms // 1000))} if error.retry_after_ms else {}
    return Refusal(BROKER_STATUS.get(error.code, 409), error.code, error.text, headers=retry)


def _shown(route: Route, environ: Mapping[str, Any], refusal: Refusal) -> HTTPResponse:
    if not route.is_page:
        return refused(refusal)
    if refusal.status == 401:
        return _see("/login", {})
    return _problem(refusal, words_of(environ))


def _problem(refusal: Refusal, words: Words) -> HTTPResponse:
    text = words.explain(refusal.code, refusal.message, refusal.details)
    return _html(frame.problem(refusal.status, text, words), refusal.status, refusal.headers)


def _not_routed(environ: Mapping[str, Any], error: HTTPError) -> HTTPResponse:
    """What the router refuses: no such path, or another method."""
    code, message = {
        404: ("not_found", "there is nothing at this path"),
        405: ("method_not_allowed", "this path is not used with this method"),
    }[error.status_code]
    a_person = not environ["PATH_INFO"].startswith("/api/") and "text/html" in environ.get("HTTP_ACCEPT", "")
    allow = error.get_header("Allow")
    refusal = Refusal(error.status_code, code, message, headers={"Allow": allow} if allow else {})
    return _problem(refusal, words_of(environ)) if a_person else refused(refusal)


def _html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    fields = {
        **COMMON,
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": frame.POLICY,
        "Cache-Control": "no-store",
        **(headers if headers else {}),
    }
    return HTTPResponse(text.encode(), status_line(status), fields)


def _see(path: str, headers: Mapping[str, str]) -> HTTPResponse:
    return HTTPResponse(b"", status_line(303), {**COMMON, "Location": path, "Cache-Control": "no-store", **headers})
