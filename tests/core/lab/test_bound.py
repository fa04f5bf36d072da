"""The lower bound: what it is made of, by hand, and that no policy undercuts it."""

from __future__ import annotations

import pytest

from comfyui.simulator.cards import GIB, Card
from scripts.laboratory.arena import Arena
from scripts.laboratory.bound import least_makespan_ms
from scripts.laboratory.traffic import Death, Foreign, Scenario
from scripts.laboratory.trials import POLICIES
from tests.core.lab.fleets import PLAIN, SLOW, A, B, job, scenario

BIG = Card("big", "big", "cuda", 40 * GIB, 1.0, 1e9)


@pytest.mark.parametrize(
    ("made", "bound_s"),
    [
        pytest.param(scenario([job(0)]), 16, id="one job: its load and its work"),
        pytest.param(scenario([job(0), job(1)], (PLAIN, PLAIN)), 16, id="each card loads the model"),
        pytest.param(scenario([job(0), job(1), job(2)], (PLAIN, PLAIN)), 26, id="pictures are not halved"),
        pytest.param(scenario([job(0, work=10), job(1, model=B)]), 32, id="more models than cards: one more load"),
        pytest.param(
            scenario([*(job(n, work=2) for n in range(40)), job(40, model=B)], (PLAIN, PLAIN)),
            54,
            id="models that share cards share their loads",
        ),
        pytest.param(scenario([job(0, work=40)], (PLAIN, SLOW)), 46, id="the longest job on the faster card"),
        pytest.param(scenario([job(0), job(1, submit_ms=60_000)]), 70, id="a job that comes late"),
        pytest.param(
            scenario([job(n, vram_bytes=20 * GIB) for n in range(3)], (BIG, PLAIN, PLAIN)), 36, id="only one is able"
        ),
        pytest.param(scenario([job(0)], deaths=(Death(0, 0, 50_000),)), 66, id="a card that is down does nothing"),
        pytest.param(scenario([job(0)], foreign=(Foreign(0, 0, 32_000, 0.25),)), 40, id="a shared card does less"),
    ],
)
def test_the_bound_is_what_one_reckons(made: Scenario, bound_s: float) -> None:
    assert least_makespan_ms(made) == pytest.approx(bound_s * 1_000, abs=2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "made",
    [
        scenario(
            [job(n, work=3 + n % 5, model=(A, B)[n % 2], submit_ms=700 * n) for n in range(40)], (PLAIN, SLOW, PLAIN)
        ),
        scenario([job(n) for n in range(12)], (PLAIN, PLAIN), deaths=(Death(1, 20_000, 30_000),)),
    ],
    ids=["two models, two speeds", "a death"],
)
def test_no_policy_undercuts_it(policy: str, made: Scenario) -> None:
    run = Arena(made, POLICIES[policy](1)).run()
    assert max(ran.ended_ms for ran in run.ran) >= least_makespan_ms(made) - 2
