"""Groups of jobs: taken whole or not at all, once for one key, each job with what is its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from broker.core import submits
from broker.core.rules import Rules
from broker.protocol import client
from broker.protocol.records import JobState
from tests.core.broker.given import NEEDS, Given, job_id, submit_of

#: Classes of nodes, as long as they may be called.
MANY = tuple(f"{number:0199}" for number in range(330))

GROUP = job_id(99)


def group_of(*numbers: int, **changes: Any) -> client.Submit:
    """A group of jobs with these ids, whose workflows and forms differ in length and content."""
    workflows = [b"%d" % number * number for number in numbers]
    forms = [b'{"seed": %d}' % number for number in numbers]
    parts = tuple(
        client.Part(job_id=job_id(number), workflow_bytes=len(workflow), form_bytes=len(form))
        for number, workflow, form in zip(numbers, workflows, forms, strict=True)
    )
    said = submit_of(99, parts=parts, workflow=b"".join(workflows), form=b"".join(forms))
    return dataclasses.replace(said, **changes)


@pytest.fixture
def broker() -> Given:
    return Given()


def test_each_job_of_a_group_is_queued_with_its_own_workflow_and_its_place(broker: Given) -> None:
    said = group_of(1, 2, 3, title="t", labels=("x",))
    reply = broker.asks(said)
    assert (reply.group_id, reply.size, reply.existed) == (GROUP, 3, False)
    for index, number in enumerate((1, 2, 3)):
        kept = broker.records[job_id(number)]
        assert kept.group is not None
        assert (kept.group.group_id, kept.group.index, kept.group.size) == (GROUP, index, 3)
        assert (kept.state, kept.title, kept.labels, kept.sequence) == (JobState.QUEUED, "t", ("x",), number)
    written = [(job.workflow, job.form) for job, _ in submits.jobs_of(said)]
    assert written == [(b"1", b'{"seed": 1}'), (b"22", b'{"seed": 2}'), (b"333", b'{"seed": 3}')]


@pytest.mark.parametrize("key", ["", "k"])
def test_a_group_asked_for_again_is_the_same_group(broker: Given, key: str) -> None:
    broker.asks(group_of(1, 2, idempotency_key=key))
    before = dict(broker.records)
    assert broker.asks(group_of(1, 2, idempotency_key=key)).existed
    assert broker.records == before


def test_a_key_gives_the_first_group_whatever_ids_the_second_brings(broker: Given) -> None:
    first = group_of(1, 2, idempotency_key="k")
    broker.asks(first)
    parts = tuple(
        dataclasses.replace(part, job_id=job_id(number)) for number, part in zip((7, 8), first.parts, strict=True)
    )
    again = broker.asks(dataclasses.replace(first, job_id=job_id(98), parts=parts))
    assert again.existed and again.group_id == GROUP
    assert broker.records.keys() == {job_id(1), job_id(2)}


@pytest.mark.parametrize(
    "other", [{"template": "t"}, {"parts": group_of(1, 2, 3).parts}, {"workflow": b"222"}], ids=lambda o: next(iter(o))
)
def test_a_key_with_another_group_is_a_conflict(broker: Given, other: dict[str, Any]) -> None:
    said = group_of(1, 2, idempotency_key="k")
    broker.asks(said)
    reply = broker.asks(dataclasses.replace(said, **other))
    assert reply.code == "conflict" and "another body" in reply.text


def test_an_id_that_is_in_use_anywhere_in_a_group_refuses_all_of_it(broker: Given) -> None:
    broker.submitted(2, idempotency_key="other")
    reply = broker.asks(group_of(1, 2, 3))
    assert reply.code == "conflict" and job_id(2) in reply.text
    assert broker.records.keys() == {job_id(2)}


@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize(
    "other",
    [submit_of(99), group_of(3, 4), group_of(1, 4), group_of(3, 99, job_id=job_id(98))],
    ids=["a job", "a group of other jobs", "a group with one job of it", "a job of another group"],
)
def test_the_id_of_a_group_is_nobody_else_s(broker: Given, key: str, other: client.Submit) -> None:
    broker.asks(group_of(1, 2, idempotency_key="first"))
    reply = broker.asks(dataclasses.replace(other, idempotency_key=key))
    assert reply.code == "conflict" and "is in use: choose another" in reply.text
    assert broker.records.keys() == {job_id(1), job_id(2)}


def test_a_group_without_a_key_is_another_one_under_another_id(broker: Given) -> None:
    broker.asks(group_of(1, 2))
    reply = broker.asks(group_of(1, 2, job_id=job_id(98)))
    assert reply.code == "conflict" and job_id(1) in reply.text


@pytest.mark.parametrize(("rule", "code"), [("max_queued", "full"), ("max_queued_per_owner", "quota")])
def test_a_group_that_does_not_fit_whole_is_refused_whole(rule: str, code: str) -> None:
    most: Any = {rule: 4}
    broker = Given(Rules(**most))
    broker.submitted(9)
    broker.submitted(10)
    reply = broker.asks(group_of(1, 2, 3))
    assert reply.code == code and reply.retry_after_ms and "room for 3 more" in reply.text
    assert len(broker.records) == 2
    assert broker.asks(group_of(1, 2)).size == 2


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (group_of(1), "two jobs or more"),
        (group_of(1, 1), "an id of its own"),
        (group_of(1, 99), "the id of a group is none of its jobs'"),
        (group_of(1, 2, workflow=b"12"), "do not add up"),
        (group_of(1, 2, form=b""), "do not add up"),
        (submit_of(workflow=b"x" * (submits.WORKFLOW_BYTES + 1)), "its workflow has 8388609 bytes"),
        (submit_of(form=b"x" * (submits.FORM_BYTES + 1)), "its form has 1048577 bytes"),
        (submit_of(needs=dataclasses.replace(NEEDS, nodes=MANY)), "it needs have 65670 characters"),
    ],
    ids=[
        "one job",
        "one id twice",
        "the id of the group",
        "workflows too short",
        "no forms",
        "a large workflow",
        "a large form",
        "many names",
    ],
)
def test_what_can_never_be_taken_is_refused_with_the_reason(broker: Given, said: client.Submit, told: str) -> None:
    reply = broker.asks(said)
    assert reply.code == "invalid" and told in reply.text and not reply.retry_after_ms
    assert not broker.records


def test_a_large_workflow_in_a_group_is_named_by_its_place(broker: Given) -> None:
    large = b"x" * (submits.WORKFLOW_BYTES + 1)
    parts = (
        client.Part(job_id=job_id(1), workflow_bytes=1, form_bytes=0),
        client.Part(job_id=job_id(2), workflow_bytes=len(large), form_bytes=0),
    )
    reply = broker.asks(submit_of(99, parts=parts, workflow=b"x" + large))
    assert reply.code == "invalid" and reply.text.startswith("job 2 of the group: its workflow")
