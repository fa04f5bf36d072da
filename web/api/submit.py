"""POST jobs: from a workflow or a filled template to a Submit, with every fault found before anything is queued.

A workflow is checked against what all workers together can do. While no worker is there it is taken as it is, if it is
whole: it waits, and the worker that comes judges it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from bottle import HTTPResponse

from broker.protocol import client, records
from broker.protocol.ids import JOB_ID, SHA256
from comfyui import strict
from comfyui.check import check, combined
from comfyui.names import path_fault
from comfyui.needs import Needs, needs
from comfyui.runnable import stand_ins
from comfyui.workflow import Kind, Workflow, WorkflowError, dump, of
from web import views_json
from web.answers import Refusal, answered
from web.api.files import may_use
from web.api.site import Call
from web.files import NoSuchFile

#: How a fault of a workflow is answered.
STATUS: Final[Mapping[Kind, int]] = {"bad_request": 400, "unprocessable": 422, "too_large": 413, "forbidden": 403}
_KEYS: Final = ("workflow", "template", "params", "title", "labels", "priority", "files", "id")
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
#: The name an upload is given, so that a workflow can use it without a list of files.
_UPLOADED = re.compile(r"(?P<sha256>[0-9a-f]{64})\.(?:png|jpg|webp)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job as a client asks for it, checked; everything but its workflow's own faults."""

    job_id: str
    idempotency_key: str
    title: str
    template: str
    labels: tuple[str, ...]
    priority: int
    files: tuple[tuple[str, str], ...]  # name, sha256
    workflow: Workflow
    form: bytes


def post(call: Call) -> HTTPResponse:
    """POST /api/v1/jobs"""
    body = call.json()
    if unknown := sorted(body.keys() - set(_KEYS)):
        raise Refusal(422, "unknown_key", f"unknown key {unknown[0][:50]!r}; there are {', '.join(_KEYS)}")
    try:
        strict.check({key: value for key, value in body.items() if key != "workflow"})
    except strict.StrictError as e:
        raise Refusal(400, "bad_text", f"the body, at {'.'.join(e.path)[:200]}: {e}") from e
    reply = submit(call, wish(call, body))
    url = f"/api/v1/jobs/{reply.job.job_id}"
    return answered(views_json.job(reply.job), 200 if reply.existed else 202, {"Location": url})


def wish(call: Call, body: Mapping[str, Any]) -> Wish:
    """What the body of POST jobs asks for. Raises Refusal."""
    if ("workflow" in body) == ("template" in body):
        raise Refusal(422, "want_one", "give either a workflow, or a template with its params")
    key = idempotency_key(call)
    job_id = _typed(body, "id", str, str(uuid.uuid4()))
    if JOB_ID.fullmatch(job_id) is None:
        raise Refusal(422, "bad_id", "an id is a UUID in lower case, such as 123e4567-e89b-42d3-a456-426614174000")
    title, template, form = _typed(body, "title", str, ""), "", b""
    if "template" in body:
        template, params = _typed(body, "template", str, ""), _typed(body, "params", dict, {})
        workflow = filled(call, template, params, draw(call, key if key else job_id))
        form = json.dumps({"template": template, "params": params}, sort_keys=True).encode()
        title = title if title else title_of(params)
    else:
        workflow = parsed(body["workflow"])
    return Wish(
        job_id=job_id,
        idempotency_key=key,
        title=_line(title, "title", 500),
        template=template,
        labels=_labels(body),
        priority=_priority(call, body),
        files=_files(body),
        workflow=workflow,
        form=form,
    )


def submit(call: Call, asked: Wish) -> client.JobReply:
    """Queue it. Raises Refusal for a workflow that no worker could run, and for missing files."""
    object_info = call.site.abilities.object_info()
    if object_info is not None and (problems := check(asked.workflow, object_info)):
        raise refusal_of(combined(problems))
    found = needs(asked.workflow, object_info if object_info is not None else {})
    return call.site.link.ask(
        client.JobReply,
        client.Submit,
        job_id=asked.job_id,
        idempotency_key=asked.idempotency_key,
        owner=call.viewer.owner,
        title=asked.title,
        template=asked.template,
        labels=asked.labels,
        priority=asked.priority,
        needs=records.Needs(
            nodes=found.nodes,
            models=found.models,
            labels=(),
            vram_bytes=0,
            pixels=found.pixels,
            steps=min(found.steps, 2**31),
            signature=found.signature,
        ),
        files=_stored(call, asked, found),
        workflow=dump(asked.workflow),
        form=asked.form,
    )


def idempotency_key(call: Call) -> str:
    """The Idempotency-Key of a request, "" when it has none."""
    key = call.header("Idempotency-Key")
    if key and _KEY.fullmatch(key) is None:
        raise Refusal(400, "bad_key", "an Idempotency-Key has 1 to 200 printable ASCII characters without spaces")
    return key


def draw(call: Call, key: str) -> int:
    """A seed for a job that names none: by its key, so that repeating the request asks for the same picture.

    Below 2^53, so that every browser can show it.
    """
    digest = hashlib.sha256(f"{call.viewer.owner}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


def filled(call: Call, name: str, params: Mapping[str, object], seed: int) -> Workflow:
    """The workflow of a template with these values. Raises Refusal."""
    template = call.site.templates.get(name)
    if template is None:
        have = ", ".join(call.site.templates)
        raise Refusal(422, "unknown_template", f"there is no template {name[:100]!r}; there are {have}")
    object_info = call.site.abilities.object_info()
    at_hand = stand_ins(template, object_info) if object_info is not None else {}
    try:
        return template.fill({**at_hand, **params}, seed=seed)
    except WorkflowError as e:
        raise refusal_of(e) from e


def title_of(params: Mapping[str, object]) -> str:
    """A title for a job that has none: the beginning of its prompt."""
    prompt = params.get("prompt")
    return " ".join(prompt.split())[:120] if isinstance(prompt, str) else ""


def parsed(value: object) -> Workflow:
    """The workflow in a parsed body. Raises Refusal."""
    try:
        return of(value)
    except WorkflowError as e:
        raise refusal_of(e) from e


def refusal_of(fault: WorkflowError) -> Refusal:
    return Refusal(STATUS[fault.kind], fault.code, str(fault), details=fault.details)


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


def _typed(body: Mapping[str, Any], key: str, kind: type[Any], default: Any) -> Any:
    value = body.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        words = {str: "text", dict: "an object", list: "a list", int: "a whole number"}
        raise Refusal(422, "bad_type", f"{key} is {words[kind]}", details={"key": key})
    return value


def _line(text: str, key: str, most: int) -> str:
    if len(text) > most or not text.isprintable():
        message = f"{key} is one line of at most {most} characters that can be printed"
        raise Refusal(422, "bad_text", message, details={"key": key})
    return text


def _labels(body: Mapping[str, Any]) -> tuple[str, ...]:
    labels = _typed(body, "labels", list, [])
    if len(labels) > 32 or not all(isinstance(label, str) and label for label in labels):
        raise Refusal(422, "bad_labels", "labels is a list of at most 32 texts", details={"key": "labels"})
    return tuple(_line(label, "a label", 200) for label in labels)


def _priority(call: Call, body: Mapping[str, Any]) -> int:
    priority: int = _typed(body, "priority", int, 0)
    if not -100 <= priority <= 100:
        raise Refusal(422, "bad_priority", "priority is from -100 to 100", details={"key": "priority"})
    if priority > 0 and not call.viewer.admin:
        raise Refusal(403, "forbidden", "only an admin may put a job before others: priority is at most 0")
    return priority


def _files(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    files = _typed(body, "files", list, [])
    found: dict[str, str] = {}
    for entry in files[:257]:
        shaped = isinstance(entry, dict) and entry.keys() == {"name", "sha256"}
        if not shaped or not all(isinstance(value, str) for value in entry.values()):
            raise Refusal(422, "bad_files", 'files is a list of {"name", "sha256"}', details={"key": "files"})
        name, sha256 = entry["name"], entry["sha256"]
        if (fault := path_fault(name)) is not None:
            raise Refusal(422, "bad_path", f"the file name {name[:100]!r} {fault}", details={"name": name[:200]})
        if SHA256.fullmatch(sha256) is None or name in found:
            told = "a name stands twice" if name in found else "a sha256 is 64 hexadecimal digits in lower case"
            raise Refusal(422, "bad_files", f"files: {told}", details={"name": name[:200]})
        found[name] = sha256
    if len(files) > 256:
        raise Refusal(422, "bad_files", "a job has at most 256 files", details={"key": "files"})
    return tuple(found.items())
