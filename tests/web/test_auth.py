"""Who may do what: tokens, cookies, other people's pages, every route for every role, nobody's job but one's own."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.protocol.errors import ConfigError
from broker.protocol.records import JobState
from broker.runtime.clock import Now, now
from broker.runtime.config import Config
from broker.runtime.settings import Web as WebSettings
from comfyui.library import BUILT_IN
from tests.web.fake_broker import a_failure, a_job, an_output
from tests.web.pictures import picture
from tests.web.stage import Answer, Stage, staged, until
from web import auth
from web.api import jobs
from web.app import ROUTES, Who
from web.auth import Gate, read_tokens
from web.process import Web, host_check

TOKENS = {"ann": "token-of-ann", "bob": "token-of-bob", "root": "token-of-root"}


def lines(*owners: str) -> str:
    digests = {owner: hashlib.sha256(TOKENS[owner].encode()).hexdigest() for owner in owners}
    return "".join(f"{owner} {digest}{' admin' if owner == 'root' else ''}\n" for owner, digest in digests.items())


def token_file(folder: Path, text: str) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A web process with three owners, one of them an admin."""
    path = token_file(tmp_path_factory.mktemp("auth"), "# who may come in\n\n" + lines("ann", "bob", "root"))
    with staged(token_file=path) as stage:
        stage.with_worker()
        yield stage


def bearer(owner: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[owner]}"}


def origin(stage: Stage) -> str:
    return f"http://127.0.0.1:{stage.port}"


def sign_in(stage: Stage, token: str, **headers: str) -> Answer:
    body = f"token={token}".encode()
    given = {"Content-Type": "application/x-www-form-urlencoded", "Origin": origin(stage), **headers}
    return stage.request("POST", "/login", body, given)


def cookie(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


# ---- every route, every role

NEW_TEMPLATE: Any = {
    "name": "poster",
    "title": "Poster",
    "workflow": json.loads((BUILT_IN / "text-to-image" / "workflow.json").read_text()),
    "fields": ["seed", {"key": "steps", "label": "Effort"}],
}
#: What is asked of each route to see who may use it; {…} are filled with things that are there.
CALLS: dict[tuple[str, str], Any] = {
    ("POST", "/login"): b"token=x",
    ("POST", "/language"): b"lang=zh",
    ("POST", "/api/v1/jobs"): {"template": "text-to-image", "params": {"prompt": "a"}},
    ("POST", "/api/v1/generate"): {"prompt": "a"},
    ("POST", "/api/v1/jobs/<job_id>/pin"): {"worker": ""},
    ("POST", "/api/v1/jobs/<job_id>/priority"): {"priority": 1},
    ("POST", "/api/v1/jobs/bulk"): {"verb": "cancel", "ids": ["00000000-0000-4000-8000-000000000000"]},
    ("POST", "/api/v1/jobs/zip"): {"ids": ["00000000-0000-4000-8000-000000000000"]},
    ("POST", "/api/v1/uploads"): picture(),
    ("POST", "/api/v1/templates"): NEW_TEMPLATE,
    ("POST", "/api/v1/templates/draft"): {"workflow": NEW_TEMPLATE["workflow"]},
}
#: Statuses of what is allowed, where they are not 200.
ALLOWED: dict[tuple[str, str], int] = {
    ("GET", "/api/v1/jobs/zip"): 404,
    ("POST", "/api/v1/jobs/zip"): 404,
    ("POST", "/login"): 401,
    ("POST", "/logout"): 303,
    ("POST", "/language"): 303,
    ("POST", "/api/v1/jobs"): 202,
    ("DELETE", "/api/v1/jobs/<job_id>"): 202,
    ("POST", "/api/v1/jobs/<job_id>/retry"): 202,
    ("POST", "/api/v1/jobs/<job_id>/pin"): 202,
    ("POST", "/api/v1/jobs/<job_id>/priority"): 202,
    ("POST", "/api/v1/uploads"): 201,
    ("POST", "/api/v1/templates"): 201,
    ("DELETE", "/api/v1/templates/<name>"): 409,
    ("POST", "/api/v1/workers/<name>/drain"): 202,
    ("POST", "/api/v1/workers/<name>/pause"): 202,
    ("POST", "/api/v1/workers/<name>/resume"): 202,
    ("POST", "/api/v1/workers/<name>/probe"): 202,
    ("POST", "/api/v1/workers/<name>/restart"): 202,
    ("POST", "/api/v1/queue/pause"): 202,
    ("POST", "/api/v1/queue/resume"): 202,
    ("POST", "/api/v1/generate"): 202,
    ("DELETE", "/api/v1/tasks/<task_id>"): 202,
}


def call(stage: Stage, method: str, path: str, headers: Mapping[str, str]) -> Answer:
    """Ask a route for something of ann's that is there."""
    state = JobState.FAILED if "retry" in path else JobState.CANCELLED if "events" in path else JobState.QUEUED
    failure = a_failure() if state is JobState.FAILED else None
    output = an_output(b"picture of ann")
    stage.broker.store(b"picture of ann")
    job = stage.broker.put(a_job(owner="ann", state=state, failure=failure, outputs=(output,)))
    filled = path.replace("<job_id>", job.job_id).replace("<task_id>", job.job_id)
    filled = filled.replace("<sha256>", f"{output.sha256}?job={job.job_id}").replace("<path:path>", "theme.js")
    filled = filled.replace("<name>", "worker-1" if "workers" in path else "text-to-image")
    filled += "?ids=00000000-0000-4000-8000-000000000000" if (method, path) == ("GET", "/api/v1/jobs/zip") else ""
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if path in ("/login", "/language") else {}
    return stage.request(method, filled, CALLS.get((method, path)), {**kind, **headers})


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("role", ["nobody", "a wrong token", "ann", "bob", "root"])
def test_every_route_for_every_role(shared: Stage, route: Any, role: str) -> None:
    headers = {
        "nobody": {},
        "a wrong token": {"Authorization": "Bearer wrong"},
    }.get(role, bearer(role) if role in TOKENS else {})
    answer = call(shared, route.method, route.path, headers)
    allowed = ALLOWED.get((route.method, route.path), 200)
    about_a_job = "<job_id>" in route.path or "<task_id>" in route.path or "<sha256>" in route.path
    if route.who is Who.ANYBODY:
        expected = allowed
    elif role in ("nobody", "a wrong token"):
        expected = 303 if route.is_page else 401
    elif role != "root" and route.who is Who.ADMIN:
        expected = 403
    elif role == "bob" and about_a_job:
        expected = 404
    else:
        expected = allowed
    assert answer.status == expected, answer.body
    if expected in (401, 403, 404):
        assert b"ann" not in answer.body.replace(b"cannot", b""), "a refusal says nothing about whose it is"


def test_a_listing_and_a_snapshot_hold_only_ones_own(shared: Stage) -> None:
    for owner in ("ann", "bob"):
        shared.broker.put(a_job(owner=owner))
    for owner in ("ann", "bob"):
        jobs = shared.request("GET", "/api/v1/jobs?limit=200", headers=bearer(owner)).json["jobs"]
        assert {job["owner"] for job in jobs} == {owner}
        page = shared.request("GET", "/", headers=bearer(owner)).body.decode()
        other = "bob" if owner == "ann" else "ann"
        assert f'"owner":"{other}"' not in page
    owners = {job["owner"] for job in shared.request("GET", "/api/v1/jobs", headers=bearer("root")).json["jobs"]}
    assert {"ann", "bob"} <= owners


def test_a_file_is_reached_by_whoever_made_it_and_nobody_else(shared: Stage) -> None:
    data = picture("PNG", 31, 31)
    made = shared.request("POST", "/api/v1/uploads", data, bearer("ann")).json
    url = f"/api/v1/files/{made['sha256']}"
    theirs = shared.broker.put(a_job(owner="bob"))
    assert shared.request("GET", url, headers=bearer("ann")).status == 200
    assert shared.request("GET", url, headers=bearer("bob")).status == 404
    assert shared.request("GET", f"{url}?job={theirs.job_id}", headers=bearer("bob")).status == 404
    assert shared.request("GET", url, headers=bearer("root")).status == 200
    load = {"1": {"class_type": "LoadImage", "inputs": {"image": made["name"]}}}
    workflow = load | {"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}
    assert shared.request("POST", "/api/v1/jobs", {"workflow": workflow}, bearer("ann")).status == 202
    refused = shared.request("POST", "/api/v1/jobs", {"workflow": workflow}, bearer("bob"))
    assert (refused.status, refused.code) == (422, "missing_file")


def test_one_owner_cannot_follow_so_many_jobs_that_nobody_else_can(
    shared: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_OF_ONE_OWNER", 2)
    path, follows = {}, {}
    for owner in ("ann", "bob"):
        path[owner] = f"/api/v1/jobs/{shared.broker.put(a_job(owner=owner)).job_id}/events"
        follows[owner] = (
            f"GET {path[owner]} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {bearer(owner)['Authorization']}"
        )
    streams = [shared.raw(f"{follows['ann']}\r\n\r\n".encode()) for _ in range(2)]
    until(lambda: shared.web.watch.of("ann") == 2)
    assert shared.request("GET", path["ann"], headers=bearer("ann")).code == "busy"
    assert b" 200 OK" in shared.raw(f"{follows['bob']}\r\n\r\n".encode()).head()
    for stream in streams:
        stream.close()


def test_only_an_admin_goes_first(shared: Stage) -> None:
    body = {"template": "text-to-image", "params": {"prompt": "a"}, "priority": 1}
    answer = shared.request("POST", "/api/v1/jobs", body, bearer("ann"))
    assert (answer.status, answer.code) == (403, "forbidden")
    assert shared.request("POST", "/api/v1/jobs", {**body, "priority": -1}, bearer("ann")).status == 202
    assert shared.request("POST", "/api/v1/jobs", body, bearer("root")).status == 202


def test_the_same_key_of_two_owners_is_two_jobs(shared: Stage) -> None:
    body = {"template": "text-to-image", "params": {"prompt": "a"}}
    jobs = [
        shared.request("POST", "/api/v1/jobs", body, {**bearer(owner), "Idempotency-Key": "k"}).json["id"]
        for owner in ("ann", "bob")
    ]
    assert jobs[0] != jobs[1]


# ---- tokens


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic dG9rZW4=", "Bearer " + "x" * 10_000, "Bearer t\xf6ken",
     f"Bearer {TOKENS['ann']} {TOKENS['bob']}", f"Bearer {hashlib.sha256(TOKENS['ann'].encode()).hexdigest()}"],
)  # fmt: skip
def test_a_bad_token_is_401(shared: Stage, value: str) -> None:
    answer = shared.get("/api/v1/stats", Authorization=value)
    assert (answer.status, answer.code, answer.headers["www-authenticate"]) == (401, "not_signed_in", "Bearer")


def test_a_wrong_token_is_not_made_good_by_a_cookie(shared: Stage) -> None:
    headers = {"Cookie": cookie(sign_in(shared, TOKENS["ann"])), "Authorization": "Bearer wrong"}
    assert shared.request("GET", "/api/v1/stats", headers=headers).status == 401


@pytest.mark.parametrize(
    "text",
    ["", "# nobody\n", "ann\n", "ann abc\n", f"ann {'A' * 64}\n", f"ann {'0' * 64} king\n", f"{'x' * 65} {'0' * 64}\n",
     f"a;b {'0' * 64}\n", f"ann {'0' * 64} admin extra\n"],
)  # fmt: skip
def test_a_token_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="token_file"):
        read_tokens(token_file(tmp_path, text))


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = token_file(tmp_path, lines("ann"))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Gate(path)
    with pytest.raises(ConfigError):
        Gate(tmp_path / "nothing")


def test_off_loopback_wants_a_token_file() -> None:
    with pytest.raises(ConfigError, match="token_file"):
        Web(Config(web=WebSettings(host="192.0.2.1", port=0)), None)


def test_a_port_that_is_taken_is_said_so(shared: Stage) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        Web(Config(network=shared.broker.network, web=WebSettings(port=shared.port)), None)


def test_a_changed_token_file_counts_at_once_and_a_broken_one_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_LOOK_MS", 0)
    gate = Gate(token_file(tmp_path, lines("ann")))
    ann, bob = ({"HTTP_AUTHORIZATION": f"Bearer {TOKENS[owner]}"} for owner in ("ann", "bob"))
    assert gate.identify(ann) and not gate.identify(bob)
    token_file(tmp_path, lines("bob", "root"))
    assert gate.identify(bob) and not gate.identify(ann)
    token_file(tmp_path, "rubbish\n")
    assert not gate.identify(bob)
    (tmp_path / "tokens").unlink()
    assert not gate.identify(bob)
    token_file(tmp_path, lines("ann"))
    assert gate.identify(ann)


# ---- the sign-in page and its cookie


def test_signing_in_gives_a_cookie_that_works_and_signing_out_ends_it(shared: Stage) -> None:
    assert shared.get("/").status == 303 and shared.get("/").headers["location"] == "/login"
    answer = sign_in(shared, TOKENS["ann"])
    assert (answer.status, answer.headers["location"]) == (303, "/")
    made = answer.headers["set-cookie"]
    assert "HttpOnly" in made and "SameSite=Strict" in made and "Path=/" in made and "Secure" not in made
    assert TOKENS["ann"] not in made
    held = {"Cookie": f"other=1; {cookie(answer)}"}
    assert shared.request("GET", "/", headers=held).status == 200
    assert shared.request("GET", "/api/v1/stats", headers=held).status == 200
    out = shared.request("POST", "/logout", headers={**held, "Origin": origin(shared)})
    assert (out.status, out.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert shared.request("GET", "/api/v1/stats", headers=held).status == 401
    other = {"Cookie": cookie(sign_in(shared, TOKENS["ann"]))}
    assert shared.request("GET", "/api/v1/stats", headers=other).status == 200, "another session goes on"


def test_behind_tls_the_cookie_is_secure(shared: Stage) -> None:
    answer = sign_in(shared, TOKENS["ann"], Origin=f"https://127.0.0.1:{shared.port}")
    assert "Secure" in answer.headers["set-cookie"]


def test_a_cookie_cannot_be_bent(shared: Stage) -> None:
    name, _, value = cookie(sign_in(shared, TOKENS["ann"])).partition("=")
    until, nonce, mac, _ = value.split(".")
    for forged in (
        f"{until}.{nonce}.{mac}.bob", f"{until}.{nonce}.{mac}.root", f"{int(until) + 1}.{nonce}.{mac}.ann",
        f"{until}.{'0' * 32}.{mac}.ann", f"{until}.{nonce}.{'0' * 64}.ann", "x", "", value + "x",
    ):  # fmt: skip
        answer = shared.get("/api/v1/stats", Cookie=f"{name}={forged}")
        assert answer.status == 401, forged
    assert shared.get("/api/v1/stats", Cookie=f"{name}={value}; {name}={value}").status == 401
    assert shared.get("/api/v1/stats", Cookie=f"{name}={value}").status == 200


def test_a_cookie_ends_with_its_time_and_with_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(token_file(tmp_path, lines("ann", "bob")))
    value = gate.sign_in(TOKENS["ann"], "127.0.0.1")
    environ = {"HTTP_COOKIE": f"comfyfleet={value}"}
    assert gate.identify(environ)
    other = Gate(tmp_path / "tokens")
    assert other.identify(environ), "another web process, or the same one restarted, knows it too"
    later = now().utc_ms + auth.SESSION_MS + 1
    with monkeypatch.context() as patch:
        patch.setattr(auth, "now", lambda: Now(0, later))
        assert not gate.identify(environ)
    monkeypatch.setattr(auth, "_LOOK_MS", 0)
    token_file(tmp_path, lines("bob"))
    assert not gate.identify(environ)


def test_wrong_tokens_are_counted_and_slowed_down(tmp_path: Path) -> None:
    with staged(token_file=token_file(tmp_path, lines("ann"))) as stage:
        for _ in range(auth.MAX_FAILURES):
            answer = sign_in(stage, "wrong")
            assert answer.status == 401 and b"not known here" in answer.body
        answer = sign_in(stage, "wrong")
        assert answer.status == 429 and int(answer.headers["retry-after"]) > 0
        assert sign_in(stage, TOKENS["ann"]).status == 303, (
            "one person's mistakes lock out nobody behind the same proxy"
        )
        assert stage.request("GET", "/api/v1/stats", headers=bearer("ann")).status == 200


def test_the_page_of_a_refusal_is_a_page(shared: Stage) -> None:
    answer = shared.get("/nothing", Accept="text/html")
    assert answer.status == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in answer.headers["content-security-policy"]


# ---- other people's pages

#: Headers of a request that some other page made, or nobody knows who.
FOREIGN: dict[str, dict[str, str]] = {
    "another origin": {"Origin": "http://evil.example"},
    "Origin null": {"Origin": "null"},
    "another port": {"Origin": "http://127.0.0.1:99999"},
    "our name in theirs": {"Origin": "http://127.0.0.1.evil.example"},
    "a path behind it": {"Origin": "{own}/"},
    "cross-site by another header": {"Sec-Fetch-Site": "cross-site"},
    "same-site is not same-origin": {"Sec-Fetch-Site": "same-site"},
    "our origin, but cross-site": {"Origin": "{own}", "Sec-Fetch-Site": "cross-site"},
    "with the password of a proxy": {"Origin": "http://evil.example", "Authorization": "Basic YTpi"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_page_changes_nothing(stage: Stage, name: str) -> None:
    headers = {key: value.replace("{own}", origin(stage)) for key, value in FOREIGN[name].items()}
    job = stage.broker.put(a_job())
    for method, path, body in (
        ("POST", "/api/v1/jobs", {"template": "text-to-image", "params": {"prompt": "a"}}),
        ("DELETE", f"/api/v1/jobs/{job.job_id}", None),
        ("POST", "/api/v1/queue/pause", None),
        ("POST", "/api/v1/uploads", picture()),
    ):
        answer = stage.request(method, path, body, headers)
        assert (answer.status, answer.code) == (403, "forbidden_origin"), path
    assert stage.broker.jobs[job.job_id].state is JobState.QUEUED and not stage.broker.paused


def test_our_own_page_and_programs_may(stage: Stage) -> None:
    for headers in (
        {}, {"Origin": origin(stage)}, {"Origin": origin(stage), "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):  # fmt: skip
        assert stage.request("POST", "/api/v1/queue/pause", None, headers).status == 202


def test_a_cookie_needs_an_origin_and_a_bearer_does_not(shared: Stage) -> None:
    held = {"Cookie": cookie(sign_in(shared, TOKENS["root"]))}
    pause = "/api/v1/queue/pause"
    assert shared.request("POST", pause, None, held).code == "forbidden_origin"
    assert shared.request("POST", pause, None, {**held, "Origin": origin(shared)}).status == 202
    assert shared.request("POST", pause, None, bearer("root")).status == 202


def test_which_hosts_are_ours() -> None:
    ours = host_check("0.0.0.0", ("fleet.example",))
    assert ours("localhost") and ours("127.0.0.1") and ours("::1") and ours("fleet.example")
    assert not ours("0.0.0.0") and not ours("evil.example") and not ours("")


def test_nobody_elses_job_can_be_guessed(shared: Stage) -> None:
    answer = shared.request("GET", f"/api/v1/jobs/{uuid.uuid4()}", headers=bearer("bob"))
    mine = shared.broker.put(a_job(owner="ann"))
    other = shared.request("GET", f"/api/v1/jobs/{mine.job_id}", headers=bearer("bob"))
    same = [one.json["error"]["message"].rpartition(" ")[0] for one in (answer, other)]
    assert (answer.status, other.status) == (404, 404) and same[0] == same[1]
