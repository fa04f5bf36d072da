"""The half hour that is remembered of each worker: what a sample holds, what makes a gap, and that it is bounded."""

from __future__ import annotations

import tracemalloc

from tests.core.page import records
from web.describe import GIB
from web.history import FIELDS, MAX_WORKERS, SAMPLES, STEP_MS, History


def running(*phases: str) -> list[records.Json]:
    return [{"job_id": "known", "attempt": 1, "phase": phase} for phase in phases]


def test_a_sample_holds_what_the_worker_said() -> None:
    history = History()
    history.sample([records.worker(held=running("running", "staged"))], 5_000)
    (sample,) = history.of("studio-1")
    assert tuple(sample) == FIELDS
    assert sample == {
        "at_ms": 5_000,
        "gpu_busy": 0.97,
        "vram_used_bytes": 14 * GIB,
        "vram_total_bytes": 24 * GIB,
        "celsius": 64,
        "running": 1,
    }


def test_what_no_driver_tells_is_unknown_and_not_nought() -> None:
    history = History()
    history.sample([records.worker(stats=records.readings(gpu_busy=None, gpu_celsius=None))], 0)
    assert (history.of("studio-1")[0]["gpu_busy"], history.of("studio-1")[0]["celsius"]) == (None, None)


def test_a_worker_that_says_nothing_leaves_a_gap() -> None:
    history = History()
    heard: list[records.Json] = [{}, {"stats": None}, {"state": "lost"}, {}]
    for at, changes in enumerate(heard):
        history.sample([records.worker(**changes)], at * STEP_MS)
    assert [sample["at_ms"] for sample in history.of("studio-1")] == [0, 3 * STEP_MS]


def test_the_oldest_sample_makes_room() -> None:
    history = History()
    for at in range(SAMPLES + 3):
        history.sample([records.worker()], at * STEP_MS)
    found = history.of("studio-1")
    assert len(found) == SAMPLES
    assert (found[0]["at_ms"], found[-1]["at_ms"]) == (3 * STEP_MS, (SAMPLES + 2) * STEP_MS)


def test_who_is_gone_is_forgotten_once_nothing_of_it_could_be_shown() -> None:
    history = History()
    history.sample([records.worker()], 0)
    history.sample([], SAMPLES * STEP_MS)
    assert history.of("studio-1") != []
    history.sample([], SAMPLES * STEP_MS + 1)
    assert history.of("studio-1") == history.of("never met") == []


def test_names_without_end_take_no_memory_without_end() -> None:
    history = History()
    history.sample((records.worker(name=f"w{n}") for n in range(MAX_WORKERS + 1)), 0)
    assert history.of("w0") == [] and history.of(f"w{MAX_WORKERS}") != []


def test_a_worker_costs_as_much_as_is_said() -> None:
    tracemalloc.start()
    history, workers = History(), [records.worker(name=f"w{n}") for n in range(20)]
    before = tracemalloc.get_traced_memory()[0]
    for at in range(SAMPLES + 1):
        history.sample(workers, at * STEP_MS)
    each = (tracemalloc.get_traced_memory()[0] - before) / 20
    tracemalloc.stop()
    assert SAMPLES * len(FIELDS) * 8 <= each < 13_000
