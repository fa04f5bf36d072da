"""Groups of jobs, and lists of jobs by whatever narrows them."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.protocol import client
from broker.protocol.records import JobState, Member
from tests.web import fake_broker
from tests.web.fake_broker import CREATED_MS, FakeBroker, a_job
from tests.web.stage import Stage, staged
from tests.web.test_auth import bearer, lines, token_file
from tests.web.test_jobs import FORM, changed, submits


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        stage.with_worker()
        yield stage


# ---- groups


def group_seeds(stage: Stage, jobs: list[dict[str, Any]]) -> list[int]:
    workflows = [json.loads(stage.broker.submits[job["id"]].workflow) for job in jobs]
    return [workflow["3"]["inputs"]["seed"] for workflow in workflows]


def test_a_count_makes_a_group_of_jobs_that_differ_in_their_seeds_alone(shared: Stage) -> None:
    params = {"prompt": "a lighthouse", "seed": 41}
    answer = shared.post("/api/v1/jobs", {"template": "text-to-image", "params": params, "count": 3, "labels": ["x"]})
    assert answer.status == 202
    group, jobs = answer.json["group"], answer.json["jobs"]
    assert answer.headers["location"] == f"/api/v1/jobs?group={group['id']}"
    assert group["size"] == 3
    assert [job["group"] for job in jobs] == [{"id": group["id"], "index": n, "size": 3} for n in range(3)]
    assert {(job["title"], *job["labels"]) for job in jobs} == {("a lighthouse", "x")}
    assert group_seeds(shared, jobs) == [41, 42, 43]
    workflows = [json.loads(shared.broker.submits[job["id"]].workflow) for job in jobs]
    for workflow in workflows:
        workflow["3"]["inputs"]["seed"] = 0
    assert workflows[0] == workflows[1] == workflows[2]
    forms = [shared.get(f"/api/v1/jobs/{job['id']}").json["form"]["params"]["seed"] for job in jobs]
    assert forms == [41, 42, 43]
    listed = shared.get(answer.headers["location"]).json["jobs"]
    assert [job["id"] for job in listed] == [job["id"] for job in reversed(jobs)]


def test_a_group_that_names_no_seed_draws_one_and_counts_on(shared: Stage) -> None:
    seeds = group_seeds(shared, shared.post("/api/v1/jobs", {**FORM, "count": 4}).json["jobs"])
    assert seeds == list(range(seeds[0], seeds[0] + 4))


def test_a_workflow_of_ones_own_may_be_counted_too_and_its_seed_begins_again_after_the_largest(shared: Stage) -> None:
    body = {"workflow": changed("3", seed=2**64 - 2), "count": 3}
    assert group_seeds(shared, shared.post("/api/v1/jobs", body).json["jobs"]) == [2**64 - 2, 2**64 - 1, 0]


def test_the_same_key_is_the_same_group_and_so_is_the_same_id(shared: Stage) -> None:
    group = str(uuid.uuid4())
    for headers, body in (({"Idempotency_Key": "group"}, {}), ({}, {"group": group})):
        answers = [shared.post("/api/v1/jobs", {**FORM, **body, "count": 2}, **headers) for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 200]
        assert answers[0].json == answers[1].json
    assert answers[0].json["group"]["id"] == group


def test_a_group_for_which_there_is_no_room_is_refused_whole(shared: Stage) -> None:
    before = len(submits(shared))
    for code, status in (("full", 503), ("quota", 429)):
        shared.broker.refuse[client.Submit] = (code, "no room", 5_000)
        answer = shared.post("/api/v1/jobs", {**FORM, "count": 3})
        assert (answer.status, answer.code) == (status, code)
    assert len(shared.broker.jobs) == len(shared.broker.submits) and len(submits(shared)) == before + 2


# ---- lists


def listed(stage: Stage, query: str, **headers: str) -> list[str]:
    return [job["id"] for job in stage.request("GET", f"/api/v1/jobs?{query}", headers=headers).json["jobs"]]


def test_pages_of_jobs_follow_one_another(stage: Stage) -> None:
    jobs = [stage.broker.put(a_job(labels=("odd",) if number % 2 else ())).job_id for number in range(7)]
    first = stage.get("/api/v1/jobs?limit=3").json
    second = stage.get(f"/api/v1/jobs?limit=3&after={first['next']}").json
    third = stage.get(f"/api/v1/jobs?limit=3&after={second['next']}").json
    seen = [job["id"] for page in (first, second, third) for job in page["jobs"]]
    assert seen == jobs[::-1] and third["next"] == ""
    assert len(stage.get("/api/v1/jobs?label=odd").json["jobs"]) == 3
    assert stage.get("/api/v1/jobs?state=running,succeeded").json == {"jobs": [], "next": ""}
    assert len(stage.get("/api/v1/jobs?state=queued").json["jobs"]) == 7


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=%C2%B2",
        "state=nothing",
        "limit=",
        "order=up",
        "since_ms=-1",
        "until_ms=x",
        "since_ms=",
    ],
)
def test_a_bad_listing_is_400(shared: Stage, query: str) -> None:
    answer = shared.get(f"/api/v1/jobs?{query}")
    assert (answer.status, answer.code) == (400, "bad_query")


def test_filters_of_a_list_narrow_it_together(stage: Stage) -> None:
    group = Member(group_id=str(uuid.uuid4()), index=0, size=2)
    old = stage.broker.put(a_job(template="other", created_utc_ms=CREATED_MS - 10, labels=("x",))).job_id
    one = stage.broker.put(a_job(group=group, labels=("x",), state=JobState.FAILED)).job_id
    two = stage.broker.put(a_job(group=dataclasses.replace(group, index=1))).job_id
    for query, expected in (
        ("template=other", [old]),
        ("template=text-to-image&label=x", [one]),
        (f"group={group.group_id}", [two, one]),
        (f"group={group.group_id}&state=failed", [one]),
        (f"since_ms={CREATED_MS}", [two, one]),
        (f"until_ms={CREATED_MS}", [old]),
        (f"since_ms={CREATED_MS - 10}&until_ms={CREATED_MS}&label=x", [old]),
        ("q=lighthouse", [two, one, old]),
        ("q=a+lighthouse&template=other", [old]),
        ("q=%E7%81%AF%E5%A1%94", []),
        ("owner=local", [two, one, old]),
        ("owner=nobody", []),
    ):
        assert listed(stage, query) == expected, query


def test_what_can_be_searched_is_the_prompt_and_not_what_it_is_to_be_kept_from(shared: Stage) -> None:
    params = {"prompt": "a red boat", "negative_prompt": "blurry"}
    form = shared.post("/api/v1/jobs", {"template": "text-to-image", "params": params}).json["id"]
    own = shared.post("/api/v1/jobs", {"workflow": changed("6", text="a green boat")}).json["id"]
    assert [shared.broker.submits[job].text for job in (form, own)] == ["a red boat", "a green boat"]


def test_nobody_lists_the_jobs_of_others_but_an_admin(tmp_path: Path) -> None:
    with staged(token_file=token_file(tmp_path, lines("root", "ann", "bob"))) as stage:
        group = Member(group_id=str(uuid.uuid4()), index=0, size=2)
        ann = stage.broker.put(a_job(owner="ann", group=group)).job_id
        bob = stage.broker.put(a_job(owner="bob", group=group)).job_id
        for query in ("", f"group={group.group_id}", "template=text-to-image", "state=queued", "owner=ann"):
            assert listed(stage, query, **bearer("ann")) == [ann], query
        assert stage.get("/api/v1/jobs?owner=bob", **bearer("ann")).code == "forbidden"
        assert listed(stage, "owner=bob", **bearer("root")) == [bob]
        assert listed(stage, "", **bearer("root")) == [bob, ann]


def test_pages_that_a_bounded_search_left_empty_are_gone_through_for_the_caller(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [stage.broker.put(a_job()).job_id for _ in range(3)]

    def sparse(broker: FakeBroker, asked: client.List) -> Any:
        """One job on every second page, each page further down."""
        at = int(asked.after) if asked.after else 0
        found = (broker.jobs[jobs[at // 2]],) if at % 2 else ()
        return client.JobsReply(request_id=asked.request_id, jobs=found, next=str(at + 1) if at < 5 else "")

    monkeypatch.setitem(fake_broker.ANSWERS, client.List, sparse)
    answer = stage.get("/api/v1/jobs?limit=2").json
    assert [job["id"] for job in answer["jobs"]] == jobs[:2] and answer["next"] == "4"
    rest = stage.get("/api/v1/jobs?limit=2&after=4").json
    assert [job["id"] for job in rest["jobs"]] == jobs[2:] and rest["next"] == ""
