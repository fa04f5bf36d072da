"""What is remembered of jobs that are alike stays small, whatever jobs there were."""

from __future__ import annotations

import dataclasses

from broker.core.backlog import group_key
from broker.core.jobs import NEEDS_BYTES
from broker.core.model import NAMES_KEPT
from broker.protocol.records import JobState, Needs, Reason
from broker.store import rows
from tests.core.broker.given import NEEDS, OUTPUT, Given, because, jobs_of, record


def of(number: int, names: int = 2_000) -> Needs:
    return dataclasses.replace(NEEDS, nodes=tuple(f"{number:06d}{name:06d}{'x' * 188}" for name in range(names)))


def test_needs_are_shared_and_those_of_giants_are_forgotten_soon() -> None:
    jobs = jobs_of({}, 0)
    assert jobs.shared(of(1, 20)) is jobs.shared(of(1, 20))
    for number in range(200):
        jobs.shared(of(number))
    assert sum(len(name) for needs in jobs._needs for name in needs.nodes) <= NEEDS_BYTES


def test_who_can_run_a_giant_is_asked_anew(broker: Given) -> None:
    gpu = broker.joined("gpu-1")
    (kind,) = (one.kind for one in broker.fleet.roster.by_session.values())
    before = len(broker.fleet.roster._serves)
    assert not broker.fleet.roster.serves(kind, group_key(of(1, NAMES_KEPT + 1)))
    assert len(broker.fleet.roster._serves) == before
    assert not broker.fleet.roster.serves(kind, group_key(of(1, NAMES_KEPT)))
    assert len(broker.fleet.roster._serves) == before + 1 and gpu.name == "gpu-1"


def test_a_row_that_is_long_or_one_job_s_own_is_not_kept() -> None:
    caches = rows._write_life, rows._write_submitted, rows._read_life, rows._read_submitted
    plain = record(1)
    assert rows.from_row(rows.to_row(plain)) == plain
    before = [cache.cache_info().currsize for cache in caches]
    outputs = tuple(dataclasses.replace(OUTPUT, name=f"{number}.png") for number in range(120))
    for own in (
        record(2, state=JobState.SUCCEEDED, outputs=outputs, needs=of(2)),
        record(3, failure=dataclasses.replace(because(Reason.NODE_ERROR), traceback="x" * 16_000), needs=of(3)),
    ):
        assert rows.from_row(rows.to_row(own)) == own
    assert [cache.cache_info().currsize for cache in caches] == before
