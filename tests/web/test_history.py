"""The history of the workers, from what the broker tells to the route that the charts read."""

from __future__ import annotations

import dataclasses

from broker.protocol.records import Stats
from tests.web.fake_broker import a_worker
from tests.web.stage import Stage, until
from web.api.fleet import MAX_HISTORIES
from web.history import STEP_MS

READINGS = Stats(
    gpu_busy=0.5, vram_free_bytes=1, vram_total_bytes=3, gpu_celsius=60, gpu_watts=200, ram_free_bytes=1,
    ram_total_bytes=2, disk_free_bytes=3, cpu_busy=0.1, comfy_queue=1, comfy_fault="",
)  # fmt: skip


def test_a_worker_s_samples_are_told_by_name(stage: Stage) -> None:
    stage.broker.meet(a_worker("a", stats=READINGS))
    stage.broker.meet(a_worker("b", stats=dataclasses.replace(READINGS, gpu_busy=0.75)))
    until(lambda: len(stage.web.hub.workers(None)) == 2)
    stage.web.hub.sample(1_000)
    told = stage.get("/api/v1/workers/history?names=b,nobody").json
    assert told["step_ms"] == STEP_MS
    assert told["workers"].keys() == {"b", "nobody"}
    assert [sample["gpu_busy"] for sample in told["workers"]["b"] if sample["at_ms"] == 1_000] == [0.75]
    assert told["workers"]["nobody"] == []
    assert stage.get("/api/v1/workers/history").json["workers"].keys() == {"a", "b"}


def test_too_many_at_once_are_refused(stage: Stage) -> None:
    names = ",".join("a" * (MAX_HISTORIES + 1))
    assert stage.get(f"/api/v1/workers/history?names={names}").code == "bad_query"


def test_while_the_broker_is_away_nothing_is_sampled(stage: Stage) -> None:
    stage.broker.meet(a_worker("a", stats=READINGS))
    until(lambda: stage.web.hub.workers(None))
    stage.web.hub.lost()
    stage.web.hub.sample(1_000)
    assert [sample for sample in stage.web.hub.history.of("a") if sample["at_ms"] == 1_000] == []
