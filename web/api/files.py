"""Stored files to the browser: by digest, in pieces, with ranges; pictures to look at, everything else to save.

A file never changes under its digest, so it may be kept for ever by whoever was allowed to fetch it once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

from bottle import HTTPResponse

from broker.protocol.ids import SHA256
from web.answers import COMMON, Refusal, disposition, status_line
from web.api.jobs import owned
from web.api.site import Call
from web.files import NoSuchFile
from web.images import HEAD_BYTES, media_type

#: No script of ours or of anybody runs in a file, even when it is opened in a tab of its own.
_SANDBOX: Final = "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def get(call: Call, sha256: str) -> HTTPResponse:
    """GET /api/v1/files/{sha256}"""
    query = call.query("job", "name")
    if SHA256.fullmatch(sha256) is None:
        raise _no_file(sha256)
    job_id = query.get("job", "")
    if not call.viewer.admin:
        _check_may_read(call, sha256, job_id)
    ranged = bool(call.header("Range"))
    etag = f'"{sha256}"'
    headers = {
        **COMMON,
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Security-Policy": _SANDBOX,
        "Accept-Ranges": "bytes",
    }
    if etag in [part.strip().removeprefix("W/") for part in call.header("If-None-Match").split(",")]:
        return HTTPResponse(b"", status_line(304), headers)
    try:
        if ranged:
            rest: Iterator[bytes] = iter(())
            size, head = call.site.files.peek(sha256, HEAD_BYTES)
        else:
            size, head, rest = call.site.files.open(sha256)
    except NoSuchFile as e:
        if job_id and _is_output(call, sha256, job_id):
            call.site.files.lost(sha256)
            raise Refusal(410, "gone", "this file was an output, and is not stored any more") from e
        raise _no_file(sha256) from e
    shown = media_type(head)
    headers["Content-Type"] = shown if shown is not None else "application/octet-stream"
    headers["Content-Disposition"] = disposition(query.get("name", ""), attachment=shown is None)
    span = _span(call, size, etag)
    if span is None:
        headers["Content-Range"] = f"bytes */{size}"
        raise Refusal(416, "bad_range", f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    start, until = span
    headers["Content-Length"] = str(until - start)
    status = 200
    if until - start < size:
        headers["Content-Range"] = f"bytes {start}-{until - 1}/{size}"
        status = 206
    body = call.site.files.stream(sha256, start, until) if ranged else itertools.chain((head,), rest)
    return HTTPResponse(body if until > start else b"", status_line(status), headers)


def may_use(call: Call, sha256: str) -> bool:
    """Whether the caller may have a job read this file: an admin any, others what they sent or their jobs made."""
    if call.viewer.admin or call.site.grants.has(call.viewer.owner, sha256):
        return True
    return any(
        output["sha256"] == sha256
        for job in call.site.hub.snapshot(call.viewer.scope)["jobs"]
        for output in job["outputs"]
    )


def _check_may_read(call: Call, sha256: str, job_id: str) -> None:
    """Raises Refusal unless it is an output of the caller's job named, or known to be the caller's otherwise."""
    if not (job_id and _is_output(call, sha256, job_id)) and not may_use(call, sha256):
        raise _no_file(sha256)


def _is_output(call: Call, sha256: str, job_id: str) -> bool:
    """Whether that job, which the caller must be able to see, made this file."""
    return any(output.sha256 == sha256 for output in owned(call, job_id).job.outputs)


def _span(call: Call, size: int, etag: str) -> tuple[int, int] | None:
    """[start, until) of what is asked for; None when there is nothing there. More than one range is the whole file."""
    found = _RANGE.fullmatch(call.header("Range"))
    if found is None or found.groups() == ("", "") or call.header("If-Range") not in ("", etag):
        return 0, size
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else None
    start, until = int(first), min(int(last) + 1 if last else size, size)
    if last and int(last) < start:
        return 0, size
    return (start, until) if start < size else None


def _no_file(sha256: str) -> Refusal:
    return Refusal(404, "not_found", f"no file of yours has the sha256 {sha256[:64]}")
