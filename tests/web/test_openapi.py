"""The OpenAPI document is what the server does: the same routes, each documented status given, each answer as told."""

from __future__ import annotations

import errno
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.protocol import client
from broker.protocol.records import Held, JobState, Phase, Stats, Timings
from tests.web.fake_broker import a_failure, a_job, a_progress, a_worker, an_output
from tests.web.pictures import picture, png_of_size
from tests.web.stage import Answer, Stage, staged, until
from tests.web.test_auth import NEW_TEMPLATE, bearer, lines, token_file
from web import serve
from web.answers import Refusal
from web.api import site as site_module
from web.app import OPENAPI, ROUTES, Route, Who
from web.library import Library
from web.link import BrokerSilent
from web.turns import Turns

DOCUMENT: dict[str, Any] = json.loads(OPENAPI.read_text())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS: dict[tuple[str, str], Any] = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
CASES = [(*key, int(status)) for key, operation in OPERATIONS.items() for status in operation["responses"]]


def documented(route: Route) -> str:
    return re.sub(r"<(\w+)>", r"{\1}", route.path)


# ---- a small judge of JSON Schema: the words that this document uses

TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
KNOWN = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "pattern", "minimum", "maximum",
    "maxItems", "maxLength", "minLength", "multipleOf", "oneOf", "$ref", "format", "description", "default",
}  # fmt: skip


def faults(schema: Mapping[str, Any], value: Any, where: str = "") -> Iterator[str]:
    assert schema.keys() <= KNOWN, f"the judge does not know {schema.keys() - KNOWN}"
    if "$ref" in schema:
        yield from faults(SCHEMAS[schema["$ref"].rpartition("/")[2]], value, where)
        return
    if "oneOf" in schema and sum(not list(faults(one, value)) for one in schema["oneOf"]) != 1:
        yield f"{where}: not exactly one of its forms"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(TYPES[kind](value) for kind in kinds):
        yield f"{where}: {value!r} is not {kinds}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: {value!r} does not match {schema['pattern']}"
    if type(value) in (int, float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{where}: {value} is out of its range"
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from faults(schema["items"], item, f"{where}[{number}]")
    if isinstance(value, dict) and "properties" in schema:
        properties = schema["properties"]
        for name in set(schema.get("required", ())) - value.keys():
            yield f"{where}.{name} is missing"
        for name, item in value.items():
            if name in properties:
                yield from faults(properties[name], item, f"{where}.{name}")
            elif schema.get("additionalProperties") is False:
                yield f"{where}.{name} is not documented"


def test_the_judge_judges() -> None:
    job = {"$ref": "#/components/schemas/TaskMade"}
    good = {"taskId": str(uuid.uuid4()), "status": "pending"}
    assert not list(faults(job, good))
    wrong: list[Any] = [{}, {**good, "status": "x"}, {**good, "taskId": 7}, {**good, "more": 1}, []]
    for bad in wrong:
        assert list(faults(job, bad)), bad


# ---- the same routes


def test_every_route_is_documented_and_every_documented_route_is_there() -> None:
    routes = {(route.method, documented(route)) for route in ROUTES if not route.is_page}
    assert routes == OPERATIONS.keys()


def test_who_may_is_documented() -> None:
    for route in ROUTES:
        if route.is_page:
            continue
        operation = OPERATIONS[route.method, documented(route)]
        assert (operation.get("security") == []) == (route.who is Who.ANYBODY)
        assert ("401" in operation["responses"]) == (route.who is not Who.ANYBODY)
        assert ("Admins." in operation["summary"]) == (route.who is Who.ADMIN)
        named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", documented(route)))


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    named = set(re.findall(r'"#/components/schemas/(\w+)"', OPENAPI.read_text()))
    assert named == SCHEMAS.keys()


# ---- every status


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    path = token_file(tmp_path_factory.mktemp("openapi"), lines("root", "ann"))
    with staged(token_file=path, max_body_bytes=64 << 10, max_upload_bytes=64 << 10) as stage:
        stage.with_worker()
        measured = Stats(
            gpu_busy=0.5, vram_free_bytes=1, vram_total_bytes=2, gpu_celsius=60, gpu_watts=200, ram_free_bytes=1,
            ram_total_bytes=2, disk_free_bytes=3, cpu_busy=0.1, comfy_queue=1, comfy_fault="",
        )  # fmt: skip
        held = (Held(job_id=str(uuid.uuid4()), attempt=1, phase=Phase.RUNNING),)
        stage.broker.meet(a_worker("full", stats=measured, labels=("fast",), held=held))
        until(lambda: len(stage.web.hub.workers(None)) == 2)
        yield stage


#: A body that is accepted, where a route wants one.
BODIES: dict[str, Any] = {
    "/api/v1/jobs": {"template": "text-to-image", "params": {"prompt": "a"}},
    "/api/v1/generate": {"prompt": "a"},
    "/api/v1/jobs/{job_id}/pin": {"worker": "worker-1"},
    "/api/v1/jobs/{job_id}/priority": {"priority": 3},
    "/api/v1/jobs/bulk": {"verb": "cancel", "ids": ["x"]},
    "/api/v1/uploads": picture(),
}
BODIES["/api/v1/templates"] = NEW_TEMPLATE
BODIES["/api/v1/templates/draft"] = {"workflow": NEW_TEMPLATE["workflow"]}
MAKES = ("/api/v1/jobs", "/api/v1/generate")


def a_full_job(stage: Stage, state: JobState) -> str:
    """A job with everything a job can have."""
    stage.broker.store(picture())
    job = a_job(
        owner="root", state=state, attempt=1, worker="full", phase=Phase.FINISHING, progress=a_progress(),
        failure=a_failure() if state is JobState.FAILED else None, labels=("x",), started_utc_ms=1, finished_utc_ms=2,
        timings=Timings(staging_ms=1, waiting_ms=2, running_ms=3, loading_ms=0, finishing_ms=4),
        outputs=(an_output(picture()),),
    )  # fmt: skip
    return stage.broker.put(job).job_id


def target(stage: Stage, method: str, path: str, state: JobState) -> str:
    """A path that leads to something that is there."""
    job = a_full_job(stage, state)
    name = "worker-1" if "workers" in path else "text-to-image"
    if "templates" in path:
        ask(stage, "DELETE", "/api/v1/templates/poster")
    if path == "/api/v1/templates/{name}" and method == "DELETE":
        name = str(ask(stage, "POST", "/api/v1/templates", NEW_TEMPLATE).json["name"])
    sha256 = an_output(picture()).sha256
    return path.format(job_id=job, task_id=job, name=name, sha256=sha256)


def ask(stage: Stage, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    return stage.request(method, path, body, {**bearer("root"), **headers})


def provoke(stage: Stage, patch: pytest.MonkeyPatch, method: str, path: str, status: int) -> Answer:
    """A request that is answered with this status."""
    queues = client.Retry if "retry" in path else client.Submit
    state = JobState.FAILED if "retry" in path else JobState.SUCCEEDED if path.endswith("events") else JobState.QUEUED
    there, body = target(stage, method, path, state), BODIES.get(path) if method == "POST" else None
    if path.endswith("zip"):
        body = {"ids": [a_full_job(stage, JobState.SUCCEEDED) if status != 404 else str(uuid.uuid4())]}
        there, body = (f"{path}?ids={','.join(body['ids'])}", None) if method == "GET" else (path, body)
    match status:
        case 422 if path.endswith("zip"):
            return ask(stage, method, f"{path}?ids=" if method == "GET" else path, None if method == "GET" else {})
        case 404 if path.endswith("zip"):
            return ask(stage, method, there, body)
        case 200 if method == "POST":
            key = {"Idempotency-Key": f"openapi {path}".replace(" ", "-")}
            ask(stage, method, there, body, **key)
            return ask(stage, method, there, body, **key)
        case 200 if method == "DELETE":
            return ask(stage, method, f"{target(stage, method, path, JobState.SUCCEEDED)}?forget=yes")
        case 200 | 201 | 202:
            return ask(stage, method, there, body)
        case 206:
            return ask(stage, method, there, Range="bytes=1-5")
        case 304:
            return ask(stage, method, there, If_None_Match="x", **{"If-None-Match": f'"{an_output(picture()).sha256}"'})
        case 400 if method in ("GET", "DELETE"):
            return ask(stage, method, f"{there}{'&' if '?' in there else '?'}surprise=1")
        case 400:
            return ask(stage, method, there, b"", **{"Content-Type": "application/json"})
        case 401:
            return stage.request(method, there, body)
        case 403 if method == "GET":
            return stage.request(method, f"{there}?owner=root", headers=bearer("ann"))
        case 403:
            return stage.request(method, there, body, {"Origin": "http://evil.example"})
        case 404:
            gone = path.format(job_id=uuid.uuid4(), task_id=uuid.uuid4(), name="nobody", sha256="0" * 64)
            return ask(stage, method, gone, body)
        case 408:
            return slow(stage, patch, method, there)
        case 409:
            return late(stage, method, path, body)
        case 410:
            lost = an_output(b"lost")
            job = stage.broker.put(a_job(owner="root", outputs=(lost,)))
            return ask(stage, method, f"/api/v1/files/{lost.sha256}?job={job.job_id}")
        case 413:
            return ask(stage, method, there, b"{" + b" " * (65 << 10), **{"Content-Type": "application/json"})
        case 415:
            return ask(stage, method, there, b"x", **{"Content-Type": "text/plain"})
        case 416:
            return ask(stage, method, there, Range="bytes=99999-")
        case 422 if method == "GET":
            stage.broker.refuse[client.List] = ("invalid", "after is not a key", 0)
            return ask(stage, method, f"{there}?after=x")
        case 422:
            return ask(stage, method, there, png_of_size(0, 1) if "uploads" in path else {"surprise": 1})
        case 429:
            stage.broker.refuse[queues] = ("quota", "too many", 1_000)
            return ask(stage, method, there, body)
        case 507 if "uploads" in path:
            patch.setattr(stage.broker, "disk_full", True)
            return ask(stage, method, there, body)
        case 507 if "templates" in path:
            for write in ("add", "remove"):
                patch.setattr(Library, write, read_only)
            return ask(stage, method, there, body)
        case 507:
            stage.broker.refuse[queues] = ("disk_full", "no room", 30_000)
            return ask(stage, method, there, body)
        case 503 if method == "POST" and ("templates" in path or "bulk" in path):
            patch.setattr(Turns, "turn", no_turn)
            return ask(stage, method, there, b"{}".ljust(64 << 10), **{"Content-Type": "application/json"})
        case 503:
            return away(stage, patch, method, there, body)
    raise AssertionError(f"nobody knows how to provoke {status}")


def no_turn(*_: Any) -> None:
    raise Refusal(503, "busy", "too many large requests at once", headers={"Retry-After": "5"})


def read_only(*_: Any) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def slow(stage: Stage, patch: pytest.MonkeyPatch, method: str, path: str) -> Answer:
    patch.setattr(site_module, "BODY_S", 0.05)
    patch.setattr(serve, "LINGER_S", 0.02)
    connection = stage.raw(
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: {bearer('root')['Authorization']}\r\nContent-Length: 9\r\n\r\n".encode()
    )
    head = connection.head().decode()
    headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
    return Answer(int(head.split(" ")[1]), headers, connection.exactly(int(headers["content-length"])))


def late(stage: Stage, method: str, path: str, body: Any) -> Answer:
    """Ask for what is over, or with a key that was used for something else."""
    if "templates" in path:
        there = target(stage, "POST", path, JobState.QUEUED)
        ask(stage, "POST", "/api/v1/templates", NEW_TEMPLATE)
        return ask(stage, method, there, body)
    if path in MAKES:
        key = {"Idempotency-Key": f"late-{uuid.uuid4()}"}
        ask(stage, method, path, body, **key)
        prompt = {"prompt": "another"}
        return ask(
            stage, method, path, {"template": "text-to-image", "params": prompt} if "params" in body else prompt, **key
        )
    if "restart" in path:
        stage.broker.refuse[client.RestartWorker] = ("conflict", "it has no command for that", 0)
    if "pin" in path or "priority" in path:
        kind = client.Pin if "pin" in path else client.Reorder
        stage.broker.refuse[kind] = ("conflict", "only a queued job can be moved", 0)
    return ask(stage, method, target(stage, method, path, JobState.SUCCEEDED), body)


def away(stage: Stage, patch: pytest.MonkeyPatch, method: str, path: str, body: Any) -> Answer:
    def silent(*_: Any, **__: Any) -> Any:
        raise BrokerSilent("the broker is away")

    web = stage.web
    for thing, name in ((web.link, "ask"), (web.files, "open"), (web.files, "put"), (web.abilities, "object_info")):
        patch.setattr(thing, name, silent)
    patch.setattr(web.hub, "connected", False)
    return ask(stage, method, path, body)


@pytest.mark.parametrize(("method", "path", "status"), CASES, ids=str)
def test_each_documented_status_is_given_and_conforms(
    shared: Stage, monkeypatch: pytest.MonkeyPatch, method: str, path: str, status: int
) -> None:
    answer = provoke(shared, monkeypatch, method, path, status)
    assert answer.status == status, answer.body
    response = OPERATIONS[method, path]["responses"][str(status)]
    content = response.get("content", {})
    if not content:
        assert answer.body == b""
        return
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in content or "*/*" in content
    if kind == "application/json":
        assert list(faults(content[kind]["schema"], answer.json)) == []
    assert {name.lower() for name in response.get("headers", {})} <= answer.headers.keys()
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0


def test_the_document_is_served(shared: Stage) -> None:
    assert shared.get("/api/v1/openapi.json").json == DOCUMENT


def test_what_a_client_may_send_is_what_the_document_says() -> None:
    new_job = SCHEMAS["NewJob"]
    template = Path("comfyui/templates/text-to-image/form.json")
    assert set(new_job["properties"]) == {
        "workflow", "template", "params", "title", "labels", "priority", "files", "id", "count", "group",
        "pin", "deadline_s", "needs_labels", "vram_bytes", "wait_for_worker",
    }  # fmt: skip
    keys = {field["key"] for field in json.loads(template.read_text())["fields"]}
    assert {"prompt", "negative_prompt", "steps", "cfg", "sampler", "scheduler", "seed"} <= keys
    from web.api.tasks import KEYS

    assert set(SCHEMAS["NewTask"]["properties"]) == {*KEYS, "width", "height"}
    assert {KEYS[key] for key in KEYS} <= keys
