"""Whether the product's placement is as good as it says, beside every baseline, scenario by scenario."""

from __future__ import annotations

from collections.abc import Mapping

from scripts.figures import Figure
from scripts.laboratory.measures import Measures
from scripts.laboratory.scenarios import SCENARIOS

#: The product's policy that is judged.
OURS = "finish_time"
#: So much worse than the best baseline may be taken for chance.
SLACK = 1.02
#: Scenarios in which loaded models or speeds decide: there SwarmUI must be beaten by a quarter.
AFFINITY = ("mixed-speed", "many-models")
SWARM = ("SWARM", "SWARM_RAW")
BEATEN = 0.75
#: Baselines that give owners their share, too.
FAIR_ONES = ("FAIR_TURNS",)
NEAR_BOUND = 1.10
FAIR = 0.95


def judge(found: Mapping[str, Mapping[str, Measures]], baselines: tuple[str, ...]) -> list[Figure]:
    """found: scenario -> policy -> medians. Judges what was run."""
    figures = []
    for name, by_policy in found.items():
        ours = by_policy.get(OURS)
        others = {policy: by_policy[policy] for policy in baselines if policy in by_policy}
        if ours is None:
            continue
        fair = {policy: others[policy] for policy in FAIR_ONES if policy in others}
        figures += _beside(name, "done_p95_s", ours, fair if SCENARIOS[name].fair else others)
        figures += _beside(name, "makespan_s", ours, others)
        if SCENARIOS[name].greedy:
            figures += _beside(name, "rest_p95_s", ours, others)
        swarms = [others[policy].done_p95_s for policy in SWARM if policy in others]
        if name in AFFINITY and swarms:
            ratio = ours.done_p95_s / min(swarms)
            figures.append(Figure(f"{name}: completion p95 / SWARM, the better mode", ratio, "ratio", BEATEN, "<="))
        if SCENARIOS[name].bounded:
            ratio = ours.makespan_s / ours.bound_s
            figures.append(Figure(f"{name}: makespan / lower bound", ratio, "ratio", NEAR_BOUND, "<="))
        if SCENARIOS[name].equals:
            figures.append(Figure(f"{name}: Jain's index between users", ours.jain, "index", FAIR, ">="))
    return figures


def _beside(name: str, what: str, ours: Measures, others: Mapping[str, Measures]) -> list[Figure]:
    if not others:
        return []
    best = min(others, key=lambda policy: getattr(others[policy], what))
    ratio = getattr(ours, what) / getattr(others[best], what)
    return [Figure(f"{name}: {_WORDS[what]} / best other ({best})", ratio, "ratio", SLACK, "<=")]


_WORDS = {
    "done_p95_s": "completion p95",
    "makespan_s": "makespan",
    "rest_p95_s": "completion p95 of all but the greediest",
}
