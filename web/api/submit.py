"""POST jobs: from a wish to a Submit, with every fault found before anything is queued.

A workflow is checked against what all workers together can do, or the last ones could. While none was seen yet it
is taken as it is, if it is whole: it waits, and the worker that comes judges it.
"""

from __future__ import annotations

import re
import uuid
from typing import Any, Final

from bottle import HTTPResponse

from broker.protocol import client, records
from comfyui import strict
from comfyui.check import check, combined
from comfyui.needs import Needs, needs
from comfyui.prompts import prompt_text
from comfyui.workflow import dump
from web import views_json
from web.answers import Refusal, answered
from web.api.files import may_use
from web.api.lists import members
from web.api.site import Call
from web.api.wishes import KEYS, Wish, refusal_of, wish
from web.files import NoSuchFile

#: The name an upload is given, so that a workflow can use it without a list of files.
_UPLOADED: Final = re.compile(r"(?P<sha256>[0-9a-f]{64})\.(?:png|jpg|webp)")

#: Problems that another worker would not have.
LACKING: Final = frozenset({"unknown_node", "unknown_model"})


def post(call: Call) -> HTTPResponse:
    """POST /api/v1/jobs"""
    body = call.json()
    if unknown := sorted(body.keys() - set(KEYS)):
        raise Refusal(422, "unknown_key", f"unknown key {unknown[0][:50]!r}; there are {', '.join(KEYS)}")
    try:
        strict.check({key: value for key, value in body.items() if key != "workflow"})
    except strict.StrictError as e:
        raise Refusal(400, "bad_text", f"the body, at {'.'.join(e.path)[:200]}: {e}") from e
    asked = wish(call, body)
    if len(asked.jobs) == 1:
        reply = submit(call, asked)
        url = f"/api/v1/jobs/{reply.job.job_id}"
        return answered(views_json.job(reply.job), 200 if reply.existed else 202, {"Location": url})
    group = submit_group(call, asked)
    made = {
        "group": {"id": group.group_id, "size": group.size},
        "jobs": [views_json.job(job) for job in members(call, group.group_id)],
    }
    location = {"Location": f"/api/v1/jobs?group={group.group_id}"}
    return answered(made, 200 if group.existed else 202, location)


def submit(call: Call, asked: Wish) -> client.JobReply:
    """Queue one job. Raises Refusal for a workflow that no worker could run, and for missing files."""
    [job] = asked.jobs
    what = _said(call, asked)
    workflow = dump(job.workflow)
    return call.site.link.ask(
        client.JobReply, client.Submit, job_id=asked.id, parts=(), workflow=workflow, form=job.form, **what
    )


def submit_group(call: Call, asked: Wish) -> client.GroupReply:
    """Queue a group, all of it or nothing. Raises Refusal as `submit` does."""
    what = _said(call, asked)
    workflows, forms = [dump(job.workflow) for job in asked.jobs], [job.form for job in asked.jobs]
    # Computed, so that a request that is repeated with its group's id names the same jobs.
    ids = [str(uuid.uuid5(uuid.UUID(asked.id), str(index))) for index in range(len(asked.jobs))]
    parts = tuple(
        client.Part(job_id=job_id, workflow_bytes=len(workflow), form_bytes=len(form))
        for job_id, workflow, form in zip(ids, workflows, forms, strict=True)
    )
    whole, form = b"".join(workflows), b"".join(forms)
    return call.site.link.ask(
        client.GroupReply, client.Submit, job_id=asked.id, parts=parts, workflow=whole, form=form, **what
    )


def _said(call: Call, asked: Wish) -> dict[str, Any]:
    """What a Submit says of every job of a wish. The jobs differ in seeds alone, so the first speaks for all but in the
    check, which knows the largest seed of each node."""
    object_info = call.site.abilities.object_info()
    for job in asked.jobs:
        problems = check(job.workflow, object_info) if object_info is not None else ()
        if fatal := [one for one in problems if not asked.wait_for_worker or one.code not in LACKING]:
            raise refusal_of(combined(fatal))
    found = needs(asked.jobs[0].workflow, object_info if object_info is not None else {})
    return {
        "idempotency_key": asked.idempotency_key,
        "owner": call.viewer.owner,
        "title": asked.title,
        "template": asked.template,
        "labels": asked.labels,
        "priority": asked.priority,
        "needs": records.Needs(
            nodes=found.nodes,
            models=found.models,
            labels=asked.needs_labels,
            vram_bytes=asked.vram_bytes,
            pixels=found.pixels,
            steps=min(found.steps, 2**31),
            signature=found.signature,
        ),
        "pin": asked.pin,
        "deadline_ms": asked.deadline_ms,
        "wait_for_worker": asked.wait_for_worker,
        "files": _stored(call, asked, found),
        "text": prompt_text(asked.jobs[0].workflow),
    }


def _stored(call: Call, asked: Wish, found: Needs) -> tuple[records.InputFile, ...]:
    """The files the workflow loads, each found in the store. Raises Refusal naming the first that is not."""
    given = dict(asked.files)
    for name in found.files:
        if name not in given:
            uploaded = _UPLOADED.fullmatch(name)
            if uploaded is None:
                message = f"the workflow loads {name[:200]!r}: upload it, and name it in files with its sha256"
                raise Refusal(422, "missing_file", message, details={"name": name[:200]})
            given[name] = uploaded["sha256"]
    stored = []
    for name, sha256 in given.items():
        try:
            if not may_use(call, sha256):
                raise NoSuchFile(sha256)
            stored.append(records.InputFile(name=name, sha256=sha256, size_bytes=call.site.files.stat(sha256)))
        except NoSuchFile as e:
            message = f"the file {name[:200]!r} ({sha256}) is not stored for you here: upload it first"
            raise Refusal(422, "missing_file", message, details={"name": name[:200], "sha256": sha256}) from e
    return tuple(stored)
