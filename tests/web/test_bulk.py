"""One verb for many jobs, what deletes one for good, and what was submitted as a file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.protocol import client
from broker.protocol.records import JobState
from tests.web.fake_broker import a_failure, a_job
from tests.web.stage import Stage, staged, until
from tests.web.test_auth import bearer, lines, token_file
from tests.web.test_jobs import FORM, WORKFLOW
from web.link import BrokerSilent


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        stage.with_worker()
        yield stage


def bulk(stage: Stage, verb: str, *ids: str, **headers: str) -> tuple[list[str], dict[str, str]]:
    """What was done, and why the others were refused."""
    answer = stage.post("/api/v1/jobs/bulk", {"verb": verb, "ids": list(ids)}, **headers)
    assert answer.status == 200, answer.body
    assert all(one["message"] for one in answer.json["refused"])
    return answer.json["done"], {one["id"]: one["code"] for one in answer.json["refused"]}


# ---- many at once


def test_each_job_is_answered_for_itself(shared: Stage) -> None:
    live = [shared.broker.put(a_job()).job_id for _ in range(3)]
    over = shared.broker.put(a_job(state=JobState.SUCCEEDED)).job_id
    failed = shared.broker.put(a_job(state=JobState.FAILED, failure=a_failure())).job_id
    nobody = str(uuid.uuid4())
    assert bulk(shared, "cancel", *live, over, nobody, "x", live[0]) == (
        live, {over: "finished", nobody: "not_found", "x": "not_found"},
    )  # fmt: skip
    assert bulk(shared, "retry", failed, over) == ([failed], {over: "conflict"})
    assert bulk(shared, "delete", *live, over, failed) == ([*live, over], {failed: "conflict"})
    assert not {*live, over} & shared.broker.jobs.keys()


def test_two_hundred_are_done_at_once(shared: Stage) -> None:
    ids = [shared.broker.put(a_job(state=JobState.SUCCEEDED)).job_id for _ in range(200)]
    assert bulk(shared, "delete", *ids) == (ids, {})


@pytest.mark.parametrize(
    "body",
    [
        {}, {"verb": "cancel"}, {"verb": "pin", "ids": ["a"]}, {"verb": ["cancel"], "ids": ["a"]},
        {"verb": "cancel", "ids": []}, {"verb": "cancel", "ids": ["a"] * 201}, {"verb": "cancel", "ids": "a"},
        {"verb": "cancel", "ids": [1]}, {"verb": "cancel", "ids": ["a"], "more": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_such_request_is_422(shared: Stage, body: Any) -> None:
    answer = shared.post("/api/v1/jobs/bulk", body)
    assert answer.status == 422 and answer.code in ("bad_bulk", "bad_ids")


def test_nobody_touches_the_jobs_of_others(tmp_path: Path) -> None:
    with staged(token_file=token_file(tmp_path, lines("root", "ann", "bob"))) as stage:
        mine = stage.broker.put(a_job(owner="ann", state=JobState.FAILED)).job_id
        theirs = stage.broker.put(a_job(owner="bob", state=JobState.FAILED)).job_id
        for verb in ("cancel", "retry", "delete"):
            assert bulk(stage, verb, theirs, **bearer("ann")) == ([], {theirs: "not_found"})
        assert stage.request("DELETE", f"/api/v1/jobs/{theirs}?forget=yes", headers=bearer("ann")).status == 404
        assert stage.get(f"/api/v1/jobs/{theirs}/workflow", **bearer("ann")).status == 404
        assert bulk(stage, "delete", mine, theirs, **bearer("root")) == ([mine, theirs], {})


def test_a_broker_that_falls_silent_leaves_the_rest_undone_and_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (stage.broker.put(a_job()).job_id for _ in range(2))
    ask = stage.web.link.ask

    def silent(reply: type[Any], request: type[Any], **fields: Any) -> Any:
        if request is client.Cancel and fields["job_id"] == second:
            raise BrokerSilent("the broker is away")
        return ask(reply, request, **fields)

    monkeypatch.setattr(stage.web.link, "ask", silent)
    assert bulk(stage, "cancel", first, second) == ([first], {second: "broker_away"})


# ---- deleting one


def test_a_deleted_job_is_gone_for_everybody_who_watches(shared: Stage) -> None:
    job = shared.broker.put(a_job(state=JobState.FAILED, failure=a_failure())).job_id
    until(lambda: shared.web.hub.job(job) is not None)
    watcher = shared.watch()
    assert job in {one["id"] for one in watcher.until("snapshot")["jobs"]}
    answer = shared.delete(f"/api/v1/jobs/{job}?forget=yes")
    assert (answer.status, answer.json) == (200, {"done": True})
    assert watcher.until("job_gone")["id"] == job
    assert shared.web.hub.job(job) is None
    assert shared.delete(f"/api/v1/jobs/{job}?forget=yes").code == "not_found"


def test_a_job_that_lives_is_not_deleted_but_cancelled_first(shared: Stage) -> None:
    job = shared.broker.put(a_job()).job_id
    answer = shared.delete(f"/api/v1/jobs/{job}?forget=yes")
    assert (answer.status, answer.code) == (409, "conflict")
    assert shared.delete(f"/api/v1/jobs/{job}").status == 202
    assert shared.delete(f"/api/v1/jobs/{job}?forget=yes").status == 200


@pytest.mark.parametrize("query", ["forget=no", "forget=", "forget=yes&forget=yes", "sure=yes"])
def test_a_job_is_not_deleted_by_anything_but_the_word(shared: Stage, query: str) -> None:
    job = shared.broker.put(a_job(state=JobState.FAILED)).job_id
    assert shared.delete(f"/api/v1/jobs/{job}?{query}").status == 400
    assert job in shared.broker.jobs


# ---- what was submitted


def test_the_workflow_is_given_byte_for_byte_under_a_name_that_every_system_takes(shared: Stage) -> None:
    job = shared.post("/api/v1/jobs", {"workflow": WORKFLOW, "title": 'a/b: dusk "x" 灯塔'}).json["id"]
    answer = shared.get(f"/api/v1/jobs/{job}/workflow")
    assert answer.body == shared.broker.submits[job].workflow
    assert json.loads(answer.body) == WORKFLOW
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith(f'attachment; filename="a-b-dusk-x-__-{job[-8:]}.json"')


def test_the_values_of_a_form_are_told_whole_so_that_the_same_again_gives_the_same(shared: Stage) -> None:
    job = shared.post("/api/v1/jobs", FORM).json["id"]
    told = shared.get(f"/api/v1/jobs/{job}").json
    assert told["template"] == "text-to-image" and told["params"]["prompt"] == "a lighthouse"
    again = shared.post("/api/v1/jobs", {"template": told["template"], "params": told["params"]}).json["id"]
    assert shared.broker.submits[again].workflow == shared.broker.submits[job].workflow
    plain = shared.post("/api/v1/jobs", {"workflow": WORKFLOW}).json["id"]
    assert shared.get(f"/api/v1/jobs/{plain}").json["params"] is None


def test_labels_and_templates_of_the_newest_jobs_are_offered(stage: Stage) -> None:
    assert stage.get("/api/v1/labels").json == {"labels": [], "templates": []}
    for number, template in enumerate(("one", "two", "", "one")):
        stage.broker.put(a_job(labels=("always", f"only {number}"), template=template))
    assert stage.get("/api/v1/labels").json == {
        "labels": ["always", "only 3", "only 2", "only 1", "only 0"], "templates": ["one", "two"],
    }  # fmt: skip
