"""What the body of POST jobs asks for: read, checked, and filled in once or some times over."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from broker.protocol.ids import JOB_ID, SHA256, WORKER_NAME
from comfyui import seeds
from comfyui.names import path_fault
from comfyui.runnable import stand_ins
from comfyui.workflow import Kind, Workflow, WorkflowError, of
from web.answers import Refusal
from web.api.site import Call

#: How a fault of a workflow is answered.
STATUS: Final[Mapping[Kind, int]] = {"bad_request": 400, "unprocessable": 422, "too_large": 413, "forbidden": 403}
KEYS: Final = (
    "workflow", "template", "params", "title", "labels", "priority", "files", "id", "count", "group",
    "pin", "deadline_s", "needs_labels", "vram_bytes", "wait_for_worker",
)  # fmt: skip
#: Jobs of one group.
MAX_COUNT: Final = 64
#: A month.
MAX_DEADLINE_S: Final = 30 * 24 * 3_600
#: More than any card has, for a while.
MAX_VRAM_BYTES: Final = 1 << 40
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclasses.dataclass(frozen=True, slots=True)
class Filled:
    """One job's workflow, and what was filled in for it as JSON; empty where there was no form."""

    workflow: Workflow
    form: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client asks for, checked; everything but its workflows' own faults. More than one job: a group."""

    id: str  # of the job, or of the group
    idempotency_key: str
    title: str
    template: str
    labels: tuple[str, ...]
    priority: int
    files: tuple[tuple[str, str], ...]  # name, sha256
    jobs: tuple[Filled, ...]
    #: The only worker that may run it; "" = any.
    pin: str = ""
    #: It is not begun later than that from now on; None = whenever.
    deadline_ms: int | None = None
    #: Labels that the worker must carry.
    needs_labels: tuple[str, ...] = ()
    #: Memory that its card must have.
    vram_bytes: int = 0
    #: Queue it even if none of the workers that are here can run it.
    wait_for_worker: bool = False


def wish(call: Call, body: Mapping[str, Any]) -> Wish:
    """What the body of POST jobs asks for. Raises Refusal."""
    if ("workflow" in body) == ("template" in body):
        raise Refusal(422, "want_one", "give either a workflow, or a template with its params")
    key, (given_id, count) = idempotency_key(call), _id_and_count(body)
    title, template = _typed(body, "title", str, ""), ""
    if "template" in body:
        template, params = _typed(body, "template", str, ""), _typed(body, "params", dict, {})
        jobs = filled(call, template, params, draw(call, key if key else given_id), count)
        title = title if title else title_of(params)
    else:
        jobs = _varied(parsed(body["workflow"]), count)
    return Wish(
        id=given_id,
        idempotency_key=key,
        title=_line(title, "title", 500),
        template=template,
        labels=_labels(body, "labels"),
        priority=_priority(call, body),
        files=_files(body),
        jobs=jobs,
        pin=_pin(body),
        deadline_ms=_deadline_ms(body),
        needs_labels=_labels(body, "needs_labels"),
        vram_bytes=_vram_bytes(body),
        wait_for_worker=_flag(body, "wait_for_worker"),
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


def filled(call: Call, name: str, params: Mapping[str, object], seed: int, count: int = 1) -> tuple[Filled, ...]:
    """The workflows of a template with these values, and the values with whatever was added to them. Raises Refusal."""
    template = call.site.templates.get(name)
    if template is None:
        have = ", ".join(call.site.templates)
        raise Refusal(422, "unknown_template", f"there is no template {name[:100]!r}; there are {have}")
    object_info = call.site.abilities.object_info()
    at_hand = stand_ins(template, object_info) if object_info is not None else {}
    try:
        values = template.complete({**at_hand, **params}, seed=seed)
        first = template.fill(values, seed=seed)
        if count == 1:
            return (Filled(first, _form(name, values)),)
        each = seeds.of_template(template, values, count)
        return tuple(Filled(template.fill(one, seed=seed), _form(name, one)) for one in each)
    except WorkflowError as e:
        raise refusal_of(e) from e


def _form(template: str, params: Mapping[str, object]) -> bytes:
    return json.dumps({"template": template, "params": params}, sort_keys=True).encode()


def _varied(workflow: Workflow, count: int) -> tuple[Filled, ...]:
    if count == 1:
        return (Filled(workflow, b""),)
    try:
        return tuple(Filled(one, b"") for one in seeds.of_workflow(workflow, count))
    except WorkflowError as e:
        raise refusal_of(e) from e


def title_of(params: Mapping[str, object]) -> str:
    """A title for a job that has none: the beginning of its prompt."""
    prompt = params.get("prompt")
    if not isinstance(prompt, str):
        return ""
    words = " ".join(prompt[:1_000].split())
    return "".join(character for character in words if character.isprintable())[:120]


def parsed(value: object) -> Workflow:
    """The workflow in a parsed body. Raises Refusal."""
    try:
        return of(value)
    except WorkflowError as e:
        raise refusal_of(e) from e


def refusal_of(fault: WorkflowError) -> Refusal:
    return Refusal(STATUS[fault.kind], fault.code, str(fault), details=fault.details)


def _id_and_count(body: Mapping[str, Any]) -> tuple[str, int]:
    """The id of the job or of the group, and how many jobs are asked for. Raises Refusal."""
    count: int = _typed(body, "count", int, 1)
    if not 1 <= count <= MAX_COUNT:
        raise Refusal(422, "bad_count", f"count is from 1 to {MAX_COUNT}", details={"key": "count"})
    named, other = ("id", "group") if count == 1 else ("group", "id")
    if other in body:
        message = f"{other} goes with a count of {'2 or more' if count == 1 else '1'}; with this one give {named}"
        raise Refusal(422, "bad_id", message, details={"key": other})
    found = _typed(body, named, str, str(uuid.uuid4()))
    if JOB_ID.fullmatch(found) is None:
        message = f"{named} is a UUID in lower case, such as 123e4567-e89b-42d3-a456-426614174000"
        raise Refusal(422, "bad_id", message, details={"key": named})
    return found, count


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


def _labels(body: Mapping[str, Any], key: str) -> tuple[str, ...]:
    labels = _typed(body, key, list, [])
    if len(labels) > 32 or not all(isinstance(label, str) and label for label in labels):
        raise Refusal(422, "bad_labels", f"{key} is a list of at most 32 texts", details={"key": key})
    return tuple(_line(label, "a label", 200) for label in labels)


def _priority(call: Call, body: Mapping[str, Any]) -> int:
    priority: int = _typed(body, "priority", int, 0)
    if not -100 <= priority <= 100:
        raise Refusal(422, "bad_priority", "priority is from -100 to 100", details={"key": "priority"})
    if priority > 0 and not call.viewer.admin:
        raise Refusal(403, "forbidden", "only an admin may put a job before others: priority is at most 0")
    return priority


def _pin(body: Mapping[str, Any]) -> str:
    pin: str = _typed(body, "pin", str, "")
    if pin and WORKER_NAME.fullmatch(pin) is None:
        raise Refusal(422, "bad_worker", f"pin is the name of a worker, not {pin[:63]!r}", details={"key": "pin"})
    return pin


def _deadline_ms(body: Mapping[str, Any]) -> int | None:
    deadline_s = body.get("deadline_s")
    if deadline_s is None:
        return None
    if type(deadline_s) not in (int, float) or not 1 <= deadline_s <= MAX_DEADLINE_S:
        message = f"deadline_s is a number of seconds from 1 to {MAX_DEADLINE_S}"
        raise Refusal(422, "bad_deadline", message, details={"key": "deadline_s"})
    return round(float(deadline_s) * 1_000)


def _vram_bytes(body: Mapping[str, Any]) -> int:
    vram_bytes = body.get("vram_bytes", 0)
    if type(vram_bytes) is not int or not 0 <= vram_bytes <= MAX_VRAM_BYTES:
        message = f"vram_bytes is a whole number of bytes from 0 to {MAX_VRAM_BYTES}"
        raise Refusal(422, "bad_vram", message, details={"key": "vram_bytes"})
    return vram_bytes


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if type(value) is not bool:
        raise Refusal(422, "bad_type", f"{key} is true or false", details={"key": key})
    return value


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
