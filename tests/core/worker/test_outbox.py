"""What waits to leave for the broker: what can wait does, a little, and what is needless never leaves."""

from __future__ import annotations

import dataclasses
from typing import Any

from broker.protocol.records import ProgressKind
from broker.protocol.worker import Accepted, Draining, ProgressReport, Ready
from tests.core.broker.given import job_id, report
from worker.core.outbox import GATHER_MS, MOST, Outbox

JOB = job_id(1)
ACCEPTED = Accepted(job_id=JOB, attempt=1, prompt_id="p")
STARTED: ProgressReport = report(JOB, 1, ProgressKind.STARTED, 1)


def ready(serial: int) -> Ready:
    return Ready(serial=serial, credits=1, seen=0)


def leaving(outbox: Outbox, now_ms: int = 0) -> list[Any]:
    found = []
    while (message := outbox.first(now_ms)) is not None:
        found.append(message)
        outbox.sent()
    return found


def holding(*messages: Any) -> Outbox:
    """All of them can wait, and came at 0."""
    outbox = Outbox()
    for message in messages:
        outbox.add(message, 0, can_wait=True)
    return outbox


def test_what_can_wait_leaves_in_order_when_its_time_has_come() -> None:
    outbox = holding(ACCEPTED, STARTED)
    outbox.add(ready(1), GATHER_MS - 1, can_wait=True)
    assert outbox.deadline_ms() == GATHER_MS and not outbox.blocked
    assert leaving(outbox, GATHER_MS - 1) == []
    assert leaving(outbox, GATHER_MS) == [ACCEPTED, STARTED, ready(1)]
    assert outbox.deadline_ms() is None


def test_what_cannot_wait_leaves_at_once_behind_what_waited() -> None:
    outbox = holding(ACCEPTED)
    outbox.add(Draining(), 1, can_wait=False)
    assert outbox.deadline_ms() is None
    assert leaving(outbox, 1) == [ACCEPTED, Draining()]


def test_of_room_only_the_newest_leaves() -> None:
    outbox = holding(ready(1), ACCEPTED)
    outbox.add(ready(2), 1, can_wait=True)
    assert leaving(outbox, GATHER_MS) == [ACCEPTED, ready(2)]


def test_a_newer_room_waits_no_longer_than_the_first_would_have() -> None:
    outbox = holding(ready(1))
    outbox.add(ready(2), GATHER_MS - 1, can_wait=True)
    assert leaving(outbox, GATHER_MS) == [ready(2)]
    outbox.add(Draining(), 0, can_wait=False)
    assert outbox.first(0) is not None
    outbox.clear()
    outbox.add(ready(3), 0, can_wait=False)
    outbox.add(ready(4), 1, can_wait=True)
    assert outbox.blocked and leaving(outbox, 1) == [ready(4)], "one that must leave is not made to wait"


def test_while_nobody_takes_anything_it_is_blocked_and_keeps_the_newest() -> None:
    outbox = Outbox()
    outbox.add(Draining(), 0, can_wait=False)
    assert outbox.first(0) == Draining() and outbox.blocked
    reports = [dataclasses.replace(STARTED, serial=serial) for serial in range(MOST)]
    for said in reports:
        outbox.add(said, 1, can_wait=True)
    assert outbox.blocked and leaving(outbox, 1) == reports
    assert not outbox.blocked


def test_what_is_begun_anew_holds_nothing() -> None:
    outbox = holding(ACCEPTED)
    outbox.clear()
    assert (outbox.first(GATHER_MS), outbox.deadline_ms(), outbox.blocked) == (None, None, False)
