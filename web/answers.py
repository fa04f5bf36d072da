"""Every answer that is not a page: JSON bodies, the one error shape, and the headers all of them carry.

Pure but for Bottle's response object. Whoever refuses a request raises a Refusal; web/app.py turns it into its answer.
"""

from __future__ import annotations

import http
import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from bottle import HTTPResponse

from web.views_json import packed

#: On every response of the API and the page. A browser must guess nothing, tell nobody and be framed nowhere.
COMMON: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
JSON_TYPE: Final = "application/json"


class Refusal(Exception):
    """The answer to this request is an error. `message` is for people, `code` a stable word for programs."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details if details is not None else {}
        self.headers = headers if headers is not None else {}


def error_body(code: str, message: str, details: Mapping[str, object] | None = None) -> bytes:
    """The one error shape."""
    shown = dict(details) if details is not None else {}
    return json.dumps({"error": {"code": code, "message": message, "details": shown}}).encode()


def status_line(status: int) -> str:
    return f"{status} {http.HTTPStatus(status).phrase}"


def refused(refusal: Refusal) -> HTTPResponse:
    body = error_body(refusal.code, refusal.message, refusal.details)
    return _response(refusal.status, body, refusal.headers)


def answered(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    return _response(status, packed(value), headers)


def disposition(name: str, *, attachment: bool) -> str:
    """A Content-Disposition header. Source: RFC 6266; only characters that no parser reads otherwise get through."""
    kind = "attachment" if attachment else "inline"
    if not name:
        return kind
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name[:200], safe='')}"


def _response(status: int, body: bytes, headers: Mapping[str, str] | None) -> HTTPResponse:
    fields = {**COMMON, "Content-Type": JSON_TYPE, "Cache-Control": "no-store", **(headers if headers else {})}
    return HTTPResponse(body, status_line(status), fields)
