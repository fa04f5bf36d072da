"""Everything that some jobs made, as one archive: written while it is sent, with a list of what is in it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from bottle import HTTPResponse

from broker.protocol.records import JobView, Output
from web.answers import COMMON, Refusal, disposition, status_line
from web.api.bulk import job_ids
from web.api.jobs import file_stem, owned
from web.api.site import Call, no_job
from web.files import NoSuchFile
from web.link import BrokerRefused
from web.zips import archive

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")

Entry = tuple[str, int, Iterable[bytes]]
#: A job, and what it made by its name in the archive.
Packed = tuple[JobView, list[tuple[str, Output]]]


def post(call: Call) -> HTTPResponse:
    """POST /api/v1/jobs/zip"""
    body = call.json()
    if body.keys() != {"ids"}:
        raise Refusal(422, "bad_ids", 'want {"ids": [job ids]}')
    return _packed(call, job_ids(body["ids"]))


def get(call: Call) -> HTTPResponse:
    """GET /api/v1/jobs/zip: the same for a plain link."""
    return _packed(call, job_ids([one for one in call.query("ids").get("ids", "").split(",") if one]))


def _packed(call: Call, ids: list[str]) -> HTTPResponse:
    jobs, absent = _found(call, ids)
    packed = [(job, list(_named(job, stem))) for job, stem in zip(jobs, _stems(jobs), strict=True)]
    if not any(files for _, files in packed):
        raise Refusal(404, "nothing_made", "these jobs made no files: choose some that succeeded")
    headers = {
        **COMMON,
        "Content-Type": "application/zip",
        "Content-Disposition": disposition("pictures.zip", attachment=True),
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    }
    return HTTPResponse(archive(_entries(call, packed, absent)), status_line(200), headers)


def _found(call: Call, ids: list[str]) -> tuple[list[JobView], list[str]]:
    """The jobs, and the ids of those that are not here (any more) for the caller: the others are packed without them.

    Raises Refusal when none is.
    """
    jobs, absent = [], []
    for job_id in ids:
        try:
            jobs.append(owned(call, job_id).job)
        except (Refusal, BrokerRefused) as e:
            if (e.code if isinstance(e, Refusal) else e.error.code) != "not_found":
                raise
            absent.append(job_id)
    if not jobs:
        raise no_job(absent[0])
    return jobs, absent


def _stems(jobs: list[JobView]) -> list[str]:
    """What the files of each job are called; by its whole id where others would be called alike: senders choose ids."""
    found = [file_stem(job) for job in jobs]
    return [stem if found.count(stem) == 1 else f"{stem}-{job.job_id}" for job, stem in zip(jobs, found, strict=True)]


def _named(job: JobView, stem: str) -> Iterator[tuple[str, Output]]:
    """What a job made, each under a name that every system takes."""
    kept = [output for output in job.outputs if output.kind != "temp"]
    for number, output in enumerate(kept, 1):
        suffix = PurePosixPath(output.name).suffix
        yield f"{stem}-{number}{suffix if _SUFFIX.fullmatch(suffix) else ''}", output


def _entries(call: Call, packed: list[Packed], absent: list[str]) -> Iterator[Entry]:
    missing: list[str] = []
    for name, output in itertools.chain.from_iterable(files for _, files in packed):
        try:
            size, head, rest = call.site.files.open(output.sha256)
        except NoSuchFile:
            call.site.files.lost(output.sha256)
            missing.append(name)
            continue
        yield name, size, itertools.chain((head,), rest)
    told = json.dumps(_manifest(packed, missing, absent), ensure_ascii=False, indent=2).encode()
    yield "manifest.json", len(told), (told,)


def _manifest(packed: list[Packed], missing: list[str], absent: list[str]) -> dict[str, Any]:
    return {
        "jobs": [
            {
                "id": job.job_id,
                "title": job.title,
                "template": job.template,
                "created_ms": job.created_utc_ms,
                "files": [{"name": name, "sha256": output.sha256} for name, output in files],
            }
            for job, files in packed
        ],
        "missing": missing,
        "not_found": absent,
    }
