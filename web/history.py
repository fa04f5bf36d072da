"""What the workers did over the last half hour: one sample of each every STEP_MS, for small charts.

Pure: told the time and the workers as they are. One flat array of numbers a worker, 8.6 kB from its first sample on: a
thousand workers cost 9 MB, and that is known at once. A worker that leaves keeps its samples until they are too old to
be shown, in case it comes back.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import Final

from web.views_json import Json

STEP_MS: Final = 10_000
#: Samples kept of each worker: half an hour.
SAMPLES: Final = 180
#: Workers remembered, also such as are gone; the one that was sampled longest ago goes first.
MAX_WORKERS: Final = 4_000
#: Of a sample, in this order; what is unknown is kept as NaN.
FIELDS: Final = ("at_ms", "gpu_busy", "vram_used_bytes", "vram_total_bytes", "celsius", "running")

_SHARES: Final = frozenset({"gpu_busy"})


class History:
    def __init__(self) -> None:
        #: Worker -> its samples, oldest first, FIELDS after FIELDS; NaN where there are fewer. The worker sampled last
        #: stands last.
        self._samples: dict[str, array[float]] = {}

    def sample(self, workers: Iterable[Json], at_ms: int) -> None:
        """Take a sample of each worker that says something of itself; called every STEP_MS."""
        for worker in workers:
            if worker["stats"] is None or worker["state"] in ("lost", "left"):
                continue
            samples = self._samples.pop(worker["name"], None)
            if samples is None:
                samples = array("d", (math.nan,)) * (SAMPLES * len(FIELDS))
            del samples[: len(FIELDS)]
            samples.extend(_sample(worker, at_ms))
            self._samples[worker["name"]] = samples
        for name in [name for name, samples in self._samples.items() if at_ms - _last_ms(samples) > SAMPLES * STEP_MS]:
            del self._samples[name]
        while len(self._samples) > MAX_WORKERS:
            del self._samples[next(iter(self._samples))]

    def of(self, name: str) -> list[Json]:
        """The worker's samples, oldest first; times without a sample are times without a word from it."""
        samples, width = self._samples.get(name, array("d")), len(FIELDS)
        rows = (samples[at : at + width] for at in range(0, len(samples), width) if not math.isnan(samples[at]))
        return [{field: _told(field, value) for field, value in zip(FIELDS, row, strict=True)} for row in rows]


def _sample(worker: Json, at_ms: int) -> tuple[float, ...]:
    stats = worker["stats"]
    busy, celsius = stats["gpu_busy"], stats["gpu_celsius"]
    total = stats["vram_total_bytes"]
    running = sum(held["phase"] in ("running", "finishing") for held in worker["held"])
    return (
        at_ms,
        math.nan if busy is None else busy,
        max(0, total - stats["vram_free_bytes"]),
        total,
        math.nan if celsius is None else celsius,
        running,
    )


def _last_ms(samples: array[float]) -> float:
    return samples[-len(FIELDS)]


def _told(field: str, value: float) -> float | None:
    if math.isnan(value):
        return None
    return round(value, 3) if field in _SHARES else int(value)
