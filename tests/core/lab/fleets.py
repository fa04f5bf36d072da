"""Small fleets and jobs to reckon by hand: a unit of work takes a second on the card `PLAIN`."""

from __future__ import annotations

from collections.abc import Iterable

from comfyui.simulator.cards import GIB, Card
from scripts.laboratory.traffic import Death, Foreign, Job, Model, Posted, Scenario

PLAIN = Card("plain", "plain", "cuda", 10 * GIB, 1.0, 1e9)
SLOW = Card("slow", "slow", "cuda", 10 * GIB, 4.0, 1e9)
#: 6 s to load; two of them do not fit into 10 GiB together.
A, B = Model("checkpoints/a", 6_000_000_000), Model("checkpoints/b", 6_000_000_000)


def job(
    number: int, *, work: float = 10.0, model: Model = A, submit_ms: int = 0, owner: str = "ann", vram_bytes: int = 0
) -> Job:
    return Job(
        number=number, owner=owner, submit_ms=submit_ms, models=(model,), pixels=1024 * 1024, steps=8,
        vram_bytes=vram_bytes, work=work,
    )  # fmt: skip


def scenario(
    jobs: Iterable[Job],
    cards: tuple[Card, ...] = (PLAIN,),
    *,
    deaths: tuple[Death, ...] = (),
    foreign: tuple[Foreign, ...] = (),
    posted: tuple[Posted, ...] = (),
) -> Scenario:
    return Scenario(cards=cards, jobs=tuple(jobs), deaths=deaths, foreign=foreign, posted=posted)
