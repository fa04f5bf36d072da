"""Which models a worker's ComfyUI is believed to hold: no API tells, so it follows from what ran there. Pure.

Up to 0.3.x ComfyUI keeps the results of the previous prompt alone, loaded models among them: the next prompt that names
the same loaders finds them, and any other one evicts them. Later releases keep what fits in memory, so here the models
used longest ago go first, by size, once the card is full. A restart, /free and a card out of memory empty it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

#: Releases from this one on keep more than the previous prompt's models.
KEEPS_MORE = (0, 4)
#: The part of a card's memory that models may fill; the rest is what a picture needs while it is made.
FOR_MODELS = 0.8


@functools.lru_cache(maxsize=1_000)
def keeps_more(version: str) -> bool:
    """Whether a ComfyUI of this version keeps more than the previous prompt's models; one that tells no version does
    not."""
    numbers = version.lstrip("v").split(".")[:2]
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        return False
    return tuple(map(int, numbers)) >= KEEPS_MORE


def after(
    resident: tuple[str, ...],
    models: Iterable[str],
    *,
    keeps_more: bool,
    vram_bytes: int,
    size: Callable[[str], int],
) -> tuple[str, ...]:
    """What is held once a prompt with these models has run, the most recently used last.

    size: of a model, in bytes. What a prompt itself needs is held, however large.
    """
    used = tuple(models)
    if not keeps_more:
        return used
    room = int(vram_bytes * FOR_MODELS) - sum(size(model) for model in used)
    kept: list[str] = []
    for model in reversed(resident):
        if model not in used:
            room -= size(model)
            if room < 0:
                break
            kept.append(model)
    return (*reversed(kept), *used)
