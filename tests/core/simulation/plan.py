"""What goes wrong in one seed's world, and when: a list that can be told in words and made shorter.

Each happening carries a seed of its own for its choices, so that leaving one out changes none of the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from broker.core.rules import Rules

STORM_MS = 40_000
JOBS = 10

#: What can go wrong, and how it is told. F numbers: the faults of the reliability programme.
FAULTS: dict[str, str] = {
    "crash_broker": "the broker is killed",  # F1
    "crash_again": "the broker is killed, and again as soon as it is back",  # F1
    "lose_broker": "the broker is gone for a minute or two",  # F14
    "pause_broker": "the broker is stopped for a while",  # F3
    "fail_commit": "the broker's next commit fails, and it ends",  # F17, F15
    "slow_disk": "the broker's commits take up to seconds for a while",  # F17
    "full_disk": "the broker's disk is full for a while",  # F15, F16
    "jump_clock": "the wall clock jumps",  # F22
    "kill_worker": "a worker is killed",  # F1
    "kill_workers": "all workers are killed at once",  # F30
    "kill_comfy": "a ComfyUI and its worker are killed",  # F24
    "restart_comfy": "a ComfyUI is started anew under its worker",  # F28
    "clear_comfy": "somebody clears a ComfyUI's queue and history",  # F27
    "silence_comfy": "a ComfyUI says nothing for a while: its history alone does",  # F26
    "poison_comfy": "a card fails everything for a while",  # F25
    "run_out": "a card's memory is too small, once",
    "poison_job": "a job kills each ComfyUI that begins it, and the worker with it",  # F32
    "remove_worker": "a worker is taken away for good",
    "pause_worker": "a worker is stopped for a while",  # F3, F4
    "stick_worker": "a worker beats, and ends nothing for a while",  # F4
    "change_worker": "a worker comes back without the node that all jobs need, and with it later",
    "add_twin": "a second process takes a worker's name, and is started again when it is thrown out",
    "drain_worker": "an admin drains a worker",  # F33
    "pause_fleet": "an admin pauses the fleet for a while",
    "slow_link": "a worker's link takes some hundred ms, or two seconds",  # F9
    "lose_beats": "a worker's heartbeats alone are lost for a while",  # F6
    "late_ready": "a worker's word of its room arrives after newer ones",  # F13
    "lose_uploads": "a worker's uploads break off for a while",  # F12
    "storm": "messages are lost, doubled and late",  # F8, F9, F13
    "calm": "the network is well again",
    "partition": "a worker is cut off",  # F5
    "one_way": "a worker is cut off in one direction",  # F6
    "flap": "a worker's link comes and goes",  # F7
    "swizzle": "all workers are cut off one by one and let back in another order",
    "cancel": "a client cancels a job",
    "burst": "a client submits a group",  # F30
    "repeat": "a client submits again with the key of another submit",
    "delete": "a client deletes a job",
    "move_job": "an admin moves a job up or down, or pins it",
}


def id_of(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012x}"


@dataclass(frozen=True)
class Happening:
    at_ms: int
    what: str
    #: Decides its choices: whom it hits, for how long.
    draw: int

    def __str__(self) -> str:
        return f"{self.at_ms / 1000:7.3f} s  {FAULTS[self.what]}"


def plan(seed: int) -> tuple[Happening, ...]:
    """What happens in this seed's world. Half of the seeds are about a few kinds of faults, again and again: so that
    rare ones meet."""
    rng = random.Random(f"plan {seed}")
    kinds = list(FAULTS)
    if rng.random() < 0.5:
        kinds = rng.sample(kinds, 3)
    count = rng.randint(3, 14)
    happenings = (Happening(rng.randint(500, STORM_MS), rng.choice(kinds), rng.getrandbits(32)) for _ in range(count))
    return tuple(sorted(happenings, key=lambda one: (one.at_ms, one.draw)))


def rules(seed: int) -> Rules:
    """Figures that make rare branches common in some seeds."""
    rng = random.Random(f"rules {seed}")
    often = rng.random() < 0.5
    return Rules(
        lease_ms=rng.choice([6_000, 10_000]) if often else 10_000,
        accept_ms=rng.choice([500, 5_000]) if often else 5_000,
        max_attempts=rng.choice([1, 2, 3]) if often else 3,
        max_deaths=rng.choice([1, 3]) if often else 3,
        breaker=rng.choice([1, 2, 3]) if often else 3,
        backoff_cap_ms=rng.choice([0, 30_000]) if often else 30_000,
        backoff_base_ms=rng.choice([0, 500]) if often else 500,
        max_queued=rng.choice([6, 1_000]) if often else 1_000,
        probe_ms=rng.choice([500, 10_000]) if often else 10_000,
        probe_first_ms=1_000,
        probe_cap_ms=8_000,
        start_to_close_ms=30_000,
        stall_ms=20_000,
    )


def shrunk(happenings: tuple[Happening, ...], fails: Callable[[tuple[Happening, ...]], bool]) -> tuple[Happening, ...]:
    """The fewest of these with which it still goes wrong, by leaving out ever smaller parts."""
    size = max(1, len(happenings) // 2)
    while happenings:
        for start in range(0, len(happenings), size):
            fewer = happenings[:start] + happenings[start + size :]
            if fails(fewer):
                happenings = fewer
                break
        else:
            if size == 1:
                break
            size //= 2
        size = max(1, min(size, len(happenings)))
    return happenings
