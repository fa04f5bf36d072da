"""Scenarios times policies times seeds, on as many processes as the machine has cores."""

from __future__ import annotations

import multiprocessing
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial

from broker.core import placement
from scripts.laboratory.arena import Arena, Policy
from scripts.laboratory.baselines import LeastQueue, Random, RoundRobin
from scripts.laboratory.bound import least_makespan_ms
from scripts.laboratory.measures import Measures, measure, median
from scripts.laboratory.product import Product
from scripts.laboratory.pulling import ClusterGateway, FairTurns, Horde
from scripts.laboratory.scenarios import SCENARIOS
from scripts.laboratory.swarm import Swarm, SwarmRaw

OTHERS: dict[str, Callable[[int], Policy]] = {
    "RANDOM": Random,
    "ROUND_ROBIN": RoundRobin,
    "LEAST_QUEUE": LeastQueue,
    "SWARM": Swarm,
    "SWARM_RAW": SwarmRaw,
    "HORDE": Horde,
    "CLUSTER_GATEWAY": ClusterGateway,
    "FAIR_TURNS": FairTurns,
}
PRODUCT: dict[str, Callable[[int], Product]] = {name: partial(Product, policy=name) for name in placement.POLICIES}
POLICIES: dict[str, Callable[[int], Policy]] = {**OTHERS, **PRODUCT}
Found = dict[str, dict[str, Measures]]


def trial(scenario: str, policies: tuple[str, ...], seed: int) -> dict[str, Measures]:
    """One seed's traffic under each policy."""
    made = SCENARIOS[scenario].make(random.Random(f"{scenario} {seed}"))
    bound_ms = least_makespan_ms(made)
    return {policy: measure(Arena(made, POLICIES[policy](seed)).run(), bound_ms) for policy in policies}


def trials(scenarios: Iterable[str], policies: tuple[str, ...], seeds: int, processes: int) -> Found:
    """scenario -> policy -> medians over the seeds 1 to `seeds`."""
    asked = [(scenario, policies, seed) for scenario in scenarios for seed in range(1, seeds + 1)]
    found: dict[str, dict[str, list[Measures]]] = defaultdict(lambda: defaultdict(list))
    with multiprocessing.Pool(processes) as pool:
        for (scenario, _, _), measured in zip(asked, pool.imap(_trial, asked), strict=True):
            for policy, one in measured.items():
                found[scenario][policy].append(one)
    return {scenario: {p: median(many) for p, many in by.items()} for scenario, by in found.items()}


def _trial(asked: tuple[str, tuple[str, ...], int]) -> dict[str, Measures]:
    return trial(*asked)
