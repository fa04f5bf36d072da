"""What is measured with real processes: whether the cost model is true, and what a policy does over the wire."""

from __future__ import annotations

import random

from comfyui.simulator.cards import GIB, Card
from scripts.figures import Figure
from scripts.laboratory.arena import Arena
from scripts.laboratory.judge import OURS
from scripts.laboratory.product import Product
from scripts.laboratory.real import run
from scripts.laboratory.traffic import Job, Model, Scenario, units

MODELS = tuple(Model(f"checkpoints/model-{name}.safetensors", 7_000_000_000) for name in "abc")
#: Small pictures with slow steps: what is measured is the fleet, not how fast this machine draws.
SIDE, STEPS = 384, 12
POST_MS = 10
#: What the product's placement is compared with over the wire.
TURNS = "round_robin_weighted"
#: How far the cost model may be from what happens.
TRUE = 0.05


def _card(step_s: float, load_s: float) -> Card:
    """One that holds one model at a time."""
    return Card(f"step-{step_s:g}", f"cuda:0 step {step_s:g}", "cuda", 10 * GIB, step_s, 7e9 / load_s)


FAST, SLOW = _card(1.2, 4.0), _card(3.6, 4.0)


def _scenario(cards: tuple[Card, ...], models: list[Model]) -> Scenario:
    jobs = tuple(
        Job(
            number=number,
            owner="ann",
            submit_ms=POST_MS * number,
            models=(model,),
            pixels=SIDE * SIDE,
            steps=STEPS,
            vram_bytes=0,
            work=units(SIDE * SIDE, STEPS),
        )
        for number, model in enumerate(models)
    )
    return Scenario(cards=cards, jobs=jobs)


def two_speeds() -> Scenario:
    return _scenario((FAST, FAST, SLOW, SLOW), [MODELS[0]] * 50)


def three_models(jobs: int, cards: tuple[Card, ...] = (FAST, FAST, SLOW, SLOW)) -> Scenario:
    """In batches of 1 to 8, as people submit."""
    rng = random.Random(3)
    models = [model for _ in range(jobs) for model in [rng.choice(MODELS)] * rng.choice([1, 2, 4, 8])]
    return _scenario(cards, models[:jobs])


def calibrate() -> list[Figure]:
    """The same jobs in the laboratory and over the wire."""
    figures = []
    for name, scenario in {"two speeds": two_speeds(), "three models": three_models(50)}.items():
        foretold = Arena(scenario, Product(1, OURS)).run()
        foretold_s = max(ran.ended_ms for ran in foretold.ran) / 1_000
        real = run(scenario, {"placement.policy": OURS})
        print(f"lab: {name}: foretold {foretold_s:.1f} s and {foretold.loads} loads, ", end="")
        print(f"real {real.makespan_s:.1f} s and {real.loads} loads, jobs {real.jobs}")
        off = abs(foretold_s - real.makespan_s) / real.makespan_s
        figures.append(Figure(f"{name}: makespan foretold, off by", off, "share", TRUE, "<="))
    return figures


def compare() -> list[Figure]:
    """200 jobs for 3 models on 2 fast and 2 slow cards: the product's placement beside cards taken in turn."""
    quick, slow = _card(0.6, 2.0), _card(1.8, 2.0)
    scenario = three_models(200, (quick, quick, slow, slow))
    ours, turns = (run(scenario, {"placement.policy": policy}) for policy in (OURS, TURNS))
    for policy, real in ((OURS, ours), (TURNS, turns)):
        print(f"lab: {policy}: {real.makespan_s:.1f} s, {real.loads} loads, jobs {real.jobs}")
    return [
        Figure(f"200 jobs over the wire: makespan / {TURNS}", ours.makespan_s / turns.makespan_s, "ratio", 0.9, "<="),
        Figure(f"200 jobs over the wire: loads / {TURNS}", ours.loads / turns.loads, "ratio", 0.5, "<="),
    ]
