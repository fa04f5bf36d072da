"""The core under loss, doubling, reordering, pauses, partitions and crashes: nothing lost, recorded twice or stuck."""

from __future__ import annotations

import os

import pytest

from tests.core.simulation.world import World

SEEDS = int(os.environ.get("FLEET_SIM_SEEDS", "500"))
FIRST = int(os.environ.get("FLEET_SIM_FIRST", "1"))


def test_no_seed_finds_a_violation() -> None:
    ran = 0
    for seed in range(FIRST, FIRST + SEEDS):
        found = World(seed).run()
        assert not found, f"seed {seed}: {found[0]} (replay: FLEET_SIM_FIRST={seed} FLEET_SIM_SEEDS=1)"
        ran += 1
    print(f"simulation: seeds {FIRST} to {FIRST + ran - 1}, 0 violations")
    assert ran == SEEDS


@pytest.mark.parametrize("seed", [1, 17, 404])
def test_a_seed_replays_to_the_same_trace(seed: int) -> None:
    first, second = World(seed), World(seed)
    first.run()
    second.run()
    assert first.trace.hexdigest() == second.trace.hexdigest()
