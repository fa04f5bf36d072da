"""The core under everything that plan.py can make go wrong: nothing lost, recorded twice or stuck.

FLEET_SIM_SEEDS=10000 FLEET_SIM_FIRST=1 scripts/test tests/core/simulation  runs as many as wanted, on all processors.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.core.simulation.plan import FAULTS, Happening, plan, shrunk
from tests.core.simulation.world import World, report

SEEDS = int(os.environ.get("FLEET_SIM_SEEDS", "2000"))
FIRST = int(os.environ.get("FLEET_SIM_FIRST", "1"))
PROCESSES = os.cpu_count() or 1


def first_failure(seeds: range) -> int | None:
    return next((seed for seed in seeds if World(seed).run()), None)


@pytest.mark.timeout(3_600)
def test_no_seed_finds_a_violation() -> None:
    parts = [range(FIRST + place, FIRST + SEEDS, PROCESSES) for place in range(PROCESSES)]
    assert sum(map(len, parts)) == SEEDS
    with ProcessPoolExecutor(PROCESSES) as pool:
        failing = [seed for seed in pool.map(first_failure, parts) if seed is not None]
    if failing:
        again = f"FLEET_SIM_FIRST={min(failing)} FLEET_SIM_SEEDS=1 scripts/test tests/core/simulation"
        pytest.fail(f"{report(min(failing))}\nreplay: {again}")
    print(f"simulation: seeds {FIRST} to {FIRST + SEEDS - 1}, 0 violations")


@pytest.mark.parametrize("seed", [1, 17, 404])
def test_a_seed_replays_to_the_same_trace(seed: int) -> None:
    first, second = World(seed), World(seed)
    first.run()
    second.run()
    assert first.trace.hexdigest() == second.trace.hexdigest()


def test_every_fault_strikes_within_the_seeds_of_one_run() -> None:
    assert {one.what for seed in range(1, 301) for one in plan(seed)} == FAULTS.keys()


def test_a_failing_plan_is_shrunk_to_what_makes_it_fail() -> None:
    happenings = tuple(Happening(n, "calm", n) for n in range(14))

    def fails(fewer: tuple[Happening, ...]) -> bool:
        return {3, 11} <= {one.draw for one in fewer}

    assert [one.draw for one in shrunk(happenings, fails)] == [3, 11]
