"""Jobs and fleets to try policies on: values only. A unit of work is one sampler step of a 1024 x 1024 picture."""

from __future__ import annotations

import dataclasses

from comfyui.simulator.cards import MEGAPIXEL, Card

#: Decoding costs about as much as so many steps of the same size; the words of a picture so much, whatever its size.
DECODE_STEPS = 2
WORDS = 0.04


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    name: str
    size_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture somebody wants. A policy may know everything of it but `work`, which has chance in it."""

    number: int
    owner: str
    submit_ms: int
    models: tuple[Model, ...]
    pixels: int
    steps: int
    vram_bytes: int
    #: Units it really takes: times a card's seconds per step, the seconds it runs there once its models are loaded.
    work: float


@dataclasses.dataclass(frozen=True, slots=True)
class Death:
    """A card's container dies with all it holds, and is up again, empty, after a while."""

    card: int
    at_ms: int
    down_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class Foreign:
    """Somebody else's program on a card: meanwhile ours goes at `share` of its speed."""

    card: int
    from_ms: int
    until_ms: int
    share: float


@dataclasses.dataclass(frozen=True, slots=True)
class Posted:
    """Somebody posts so many prompts to a card's ComfyUI from a browser of their own, each of so much work."""

    card: int
    at_ms: int
    prompts: int
    work: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet, its traffic, and what goes wrong; every policy gets the very same one."""

    cards: tuple[Card, ...]
    jobs: tuple[Job, ...]
    deaths: tuple[Death, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    posted: tuple[Posted, ...] = ()
    #: How often a worker of the product speaks when nothing happens; longer where days are simulated.
    heartbeat_ms: int = 2_000


def units(pixels: int, steps: int) -> float:
    """The work of a picture, before chance."""
    return pixels / MEGAPIXEL * (steps + DECODE_STEPS) + WORDS
