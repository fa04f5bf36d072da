"""The fleets and days every policy is tried on. All chance comes from the seed's generator, and none from a policy."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from comfyui.simulator.cards import CARDS, GIB, MEGAPIXEL, Card, card
from scripts.laboratory.traffic import Death, Foreign, Job, Model, Scenario, units

SDXL = Model("checkpoints/sdxl.safetensors", 6_940_000_000)
SMALL = Model("checkpoints/sd15.safetensors", 2_130_000_000)
FLUX = Model("diffusion_models/flux.safetensors", 17_200_000_000)
P40 = Card("p40", "cuda:0 Tesla P40", "cuda", 24 * GIB, 1.0, 1.5e9)
#: Between two submits of one client, which posts one after the other.
POST_MS = 20
#: Whose all jobs are where owners are not what is tried: then everybody serves first come, first served, and only the
#: choice of a card differs.
ONE = "ann"
#: How far a run may differ from what its size and steps say.
NOISE = 0.08
Wish = tuple[str, int, Model, float, int, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    about: str
    make: Callable[[random.Random], Scenario]
    #: The bound is near what could be done: the goal for the makespan is judged by it.
    bounded: bool = False
    #: Owners are equals who all have work for a while: fairness is judged.
    equals: bool = False
    #: One owner wants most: what all others wait is judged, too.
    greedy: bool = False
    #: A fair share makes that owner wait longer than first come, first served does: completion is judged beside what is
    #: fair, too.
    fair: bool = False


def _jobs(rng: random.Random, wishes: Iterable[Wish]) -> tuple[Job, ...]:
    """Of (owner, submit_ms, model, megapixels, steps, vram_bytes), numbered by time; the first one comes at 0."""
    ordered = sorted(wishes, key=lambda wish: wish[1])
    begin_ms = ordered[0][1]
    return tuple(
        Job(
            number=number,
            owner=owner,
            submit_ms=at_ms - begin_ms,
            models=(model,),
            pixels=round(megapixels * MEGAPIXEL),
            steps=steps,
            vram_bytes=vram_bytes,
            work=units(round(megapixels * MEGAPIXEL), steps) * rng.lognormvariate(0, NOISE),
        )
        for number, (owner, at_ms, model, megapixels, steps, vram_bytes) in enumerate(ordered)
    )


def _burst(rng: random.Random, owner: str, count: int, at_ms: int = 0, models: Sequence[Model] = (SDXL,)) -> list[Wish]:
    """So many pictures posted one after the other."""
    steps = rng.choice([20, 25, 30])
    return [(owner, at_ms + POST_MS * n, rng.choice(models), 1.0, steps, 0) for n in range(count)]


def _arrivals(rng: random.Random, count: int, over_s: float) -> Iterator[int]:
    """Moments of a steady stream."""
    return iter(sorted(rng.randrange(round(over_s * 1_000)) for _ in range(count)))


def same_cards(rng: random.Random) -> Scenario:
    wishes = [wish for n in range(4) for wish in _burst(rng, f"user-{n}", 50, at_ms=n * 5)]
    return Scenario(cards=(CARDS["rtx-3090"],) * 4, jobs=_jobs(rng, wishes))


def mixed_speed(rng: random.Random) -> Scenario:
    wishes = [wish for n in range(6) for wish in _burst(rng, ONE, 60, at_ms=n * 75_000)]
    return Scenario(cards=(CARDS["rtx-4090"],) * 4 + (P40,) * 4, jobs=_jobs(rng, wishes))


def many_models(rng: random.Random) -> Scenario:
    return _twelve_models(rng, over_s=600)


def calm_models(rng: random.Random) -> Scenario:
    return _twelve_models(rng, over_s=1_500)


def _twelve_models(rng: random.Random, over_s: float) -> Scenario:
    """A little more than the cards can do in 600 s, loads not counted."""
    models = [Model(f"checkpoints/model-{n:02}.safetensors", 7_000_000_000) for n in range(12)]
    weights = [1 / (n + 1) ** 0.7 for n in range(12)]
    wishes: list[Wish] = []
    for at_ms in _arrivals(rng, 120, over_s):
        model = rng.choices(models, weights)[0]
        wishes += _burst(rng, ONE, rng.choice([1, 2, 4, 4, 8]), at_ms, [model])
    return Scenario(cards=(card("rtx-3060", load_s=20),) * 8, jobs=_jobs(rng, wishes))


def bursty_day(rng: random.Random) -> Scenario:
    models = (SDXL, SMALL, Model("checkpoints/pony.safetensors", 6_940_000_000), FLUX)
    wishes: list[Wish] = []
    while len(wishes) < 2_000:
        hour = rng.triangular(0, 24, 15)
        model = rng.choices(models, [5, 2, 3, 1])[0]
        owner, at_ms = f"user-{rng.randrange(12)}", round(hour * 3_600_000)
        for _ in range(rng.randint(1, 4)):
            wishes += _burst(rng, owner, rng.choice([1, 4, 4, 16, 32]), at_ms, [model])
            at_ms += round(rng.expovariate(1 / 45_000)) + 1_000
    cards = (CARDS["rtx-4090"],) * 2 + (CARDS["rtx-3090"],) * 2 + (P40,) * 2
    return Scenario(cards=cards, jobs=_jobs(rng, wishes), heartbeat_ms=30_000)


def greedy_user(rng: random.Random) -> Scenario:
    wishes = _burst(rng, "greedy", 400)
    for n in range(19):
        wishes += _burst(rng, f"user-{n:02}", 20, at_ms=500 + rng.randrange(1_500))
    return Scenario(cards=(CARDS["rtx-3090"],) * 4, jobs=_jobs(rng, wishes))


def vram_mixed(rng: random.Random) -> Scenario:
    cards = (CARDS["rtx-5090"],) * 2 + (CARDS["rtx-3090"],) * 2 + (CARDS["rtx-3060"],) * 4
    kinds = [(FLUX, 1.0, 28, 20 * GIB), (SDXL, 1.0, 25, 9 * GIB), (SMALL, 0.3, 25, 3 * GIB)]
    wishes: list[Wish] = []
    for at_ms in _arrivals(rng, 150, 300):
        model, megapixels, steps, vram_bytes = rng.choices(kinds, [2, 5, 3])[0]
        for i in range(rng.choice([1, 2, 4])):
            wishes.append((ONE, at_ms + POST_MS * i, model, megapixels, steps, vram_bytes))
    return Scenario(cards=cards, jobs=_jobs(rng, wishes))


def worker_deaths(rng: random.Random) -> Scenario:
    wishes = [wish for n in range(4) for wish in _burst(rng, ONE, 75, at_ms=n * 5)]
    deaths = tuple(
        Death(victim, rng.randrange(20_000, 200_000), rng.randrange(30_000, 120_000))
        for victim in rng.sample(range(6), 3)
    )
    return Scenario(cards=(CARDS["rtx-3090"],) * 6, jobs=_jobs(rng, wishes), deaths=deaths)


def unequal_users(rng: random.Random) -> Scenario:
    wishes: list[Wish] = []
    for n, at_ms in enumerate(_arrivals(rng, 110, 400)):
        wishes += _burst(rng, f"user-{n % 6}", [1, 1, 2, 4, 6, 8][n % 6], at_ms)
    return Scenario(cards=(CARDS["rtx-3090"],) * 5, jobs=_jobs(rng, wishes))


def foreign_load(rng: random.Random) -> Scenario:
    wishes: list[Wish] = []
    for at_ms in _arrivals(rng, 90, 400):
        wishes += _burst(rng, ONE, rng.choice([1, 2, 4, 8]), at_ms)
    foreign = tuple(
        Foreign(victim, begin, begin + rng.randrange(100_000, 200_000), 0.2)
        for victim, begin in ((0, 30_000), (1, 150_000), (2, 250_000))
    )
    return Scenario(cards=(CARDS["rtx-3090"],) * 6, jobs=_jobs(rng, wishes), foreign=foreign)


def thousand_workers(rng: random.Random) -> Scenario:
    models = [Model(f"checkpoints/model-{n:02}.safetensors", 6_940_000_000) for n in range(6)]
    kinds = (CARDS["rtx-4090"], CARDS["rtx-3090"], CARDS["rtx-3060"], CARDS["l4"])
    wishes: list[Wish] = []
    for n, at_ms in enumerate(_arrivals(rng, 500, 60)):
        wishes += _burst(rng, f"user-{n % 50}", 8, at_ms, [rng.choice(models)])
    cards = tuple(kinds[n % len(kinds)] for n in range(1_000))
    return Scenario(cards=cards, jobs=_jobs(rng, wishes), heartbeat_ms=10_000)


def heavy_tail(rng: random.Random) -> Scenario:
    """Pareto, alpha 1.3, cut at half an hour on the slower cards: pictures, and now and then a film."""
    wishes: list[Wish] = []
    for at_ms in _arrivals(rng, 400, 900):
        megapixels = min(150.0, 0.5 * rng.paretovariate(1.3))
        wishes.append((ONE, at_ms, SDXL, math.ceil(megapixels * 4) / 4, 25, 0))
    return Scenario(cards=(CARDS["rtx-4090"],) * 2 + (CARDS["rtx-3060"],) * 4, jobs=_jobs(rng, wishes))


SCENARIOS: dict[str, Setting] = {
    "same-cards": Setting(
        about="4 equal cards, one model, 200 pictures at once from 4 users", make=same_cards, bounded=True, equals=True
    ),
    "mixed-speed": Setting(
        about="4 fast cards and 4 that are 8 times slower, 60 pictures at once each 75 s",
        make=mixed_speed,
        bounded=True,
    ),
    "many-models": Setting(
        about="12 models on 8 cards that hold one each and take 20 s to load it, a steady stream of small batches",
        make=many_models,
        bounded=True,
    ),
    "calm-models": Setting(about="the same in two and a half times the time", make=calm_models),
    "bursty-day": Setting(about="24 hours, 12 users, 4 models, 3 kinds of cards", make=bursty_day),
    "greedy-user": Setting(
        about="one user with 400 pictures before 19 with 20 each",
        make=greedy_user,
        bounded=True,
        equals=True,
        greedy=True,
    ),
    "unequal-users": Setting(
        about="5 equal cards, 6 users who want from 1 to 8 pictures at a time",
        make=unequal_users,
        greedy=True,
        fair=True,
    ),
    "vram-mixed": Setting(about="cards of 32, 24 and 12 GB, models that need 20, 9 and 3", make=vram_mixed),
    "worker-deaths": Setting(about="3 of 6 cards die for 30 to 120 s", make=worker_deaths, bounded=True),
    "foreign-load": Setting(about="another program takes 80 % of 3 of 6 cards for minutes", make=foreign_load),
    "thousand-workers": Setting(
        about="1,000 cards of 4 kinds, 6 models, 4,000 pictures in a minute", make=thousand_workers
    ),
    "heavy-tail": Setting(about="lengths from seconds to half an hour, 2 fast and 4 slow cards", make=heavy_tail),
}
