"""The graphics cards a simulator can pretend to have: memory, speed, and which models are loaded.

Times only, no clock: everything is answered in seconds for somebody else to wait. The figures are round ones near what
such cards do, so that a fleet of different cards behaves like one.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

GIB = 1024**3
#: Bytes that sampling and decoding take for each pixel of a batch.
WORK_BYTES_PER_PIXEL = 1200
#: A step on a small picture is not faster than on one of this share of a megapixel.
LEAST_SHARE = 0.02
MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True)
class Card:
    """One graphics card, or the processor."""

    #: What it is called on the command line.
    key: str
    #: What GET /system_stats calls it.
    name: str
    #: torch's name for the kind of device: cuda or cpu.
    kind: str
    vram_bytes: int
    #: Seconds for one sampler step of an SDXL picture of 1024 × 1024.
    step_s: float
    #: Bytes of a model read from disk into memory each second.
    load_bytes_per_s: float

    @property
    def index(self) -> int | None:
        return None if self.kind == "cpu" else 0


def _cuda(key: str, title: str, vram_bytes: int, step_s: float, load_gb_per_s: float) -> Card:
    return Card(key, f"cuda:0 {title} : cudaMallocAsync", "cuda", vram_bytes, step_s, load_gb_per_s * 1e9)


CARDS = {
    card.key: card
    for card in (
        Card("cpu", "cpu", "cpu", 25_276_502_016, 6.0, 1.5e9),
        _cuda("gtx-1650", "NVIDIA GeForce GTX 1650", 4 * GIB, 3.2, 1.0),
        _cuda("rtx-3060", "NVIDIA GeForce RTX 3060", 12 * GIB, 0.50, 2.0),
        _cuda("rtx-3090", "NVIDIA GeForce RTX 3090", 24 * GIB, 0.22, 2.5),
        _cuda("rtx-4090", "NVIDIA GeForce RTX 4090", 24 * GIB, 0.12, 3.0),
        _cuda("rtx-5090", "NVIDIA GeForce RTX 5090", 32 * GIB, 0.09, 3.5),
        _cuda("l4", "NVIDIA L4", 23 * GIB, 0.45, 2.0),
        _cuda("a100", "NVIDIA A100-SXM4-80GB", 80 * GIB, 0.14, 3.0),
        _cuda("h200", "NVIDIA H200", 141 * GIB, 0.08, 4.0),
    )
}


def card(key: str, vram_bytes: int | None = None, step_s: float | None = None, load_s: float | None = None) -> Card:
    """The named card, with figures of one's own where given; `load_s` is for a checkpoint of 7 GB.

    Raises KeyError for a name that is not in CARDS.
    """
    chosen = CARDS[key]
    return replace(
        chosen,
        vram_bytes=vram_bytes if vram_bytes is not None else chosen.vram_bytes,
        step_s=step_s if step_s is not None else chosen.step_s,
        load_bytes_per_s=7e9 / max(load_s, 1e-9) if load_s is not None else chosen.load_bytes_per_s,
    )


@dataclass(frozen=True)
class Pace:
    """How many seconds each kind of work takes; `speed` 2 halves them all, infinity makes them 0."""

    card: Card
    speed: float = 1.0

    def load_s(self, size_bytes: int) -> float:
        return size_bytes / self.card.load_bytes_per_s / self.speed

    def step_s(self, width: int, height: int, batch: int) -> float:
        return self.card.step_s * max(LEAST_SHARE, width * height / MEGAPIXEL) * batch / self.speed

    def decode_s(self, width: int, height: int, batch: int) -> float:
        """Also for encoding."""
        return 2 * self.step_s(width, height, batch)

    def words_s(self) -> float:
        return 0.02 * self.card.step_s / self.speed

    def filter_s(self, width: int, height: int, batch: int) -> float:
        """A slow picture filter on the processor, such as a wide blur."""
        return 0.13 * width * height / MEGAPIXEL * batch / self.speed

    def tile_s(self) -> float:
        """One tile of 512 × 512 through an upscale model."""
        return 1.5 * self.card.step_s / self.speed


class Memory:
    """The card's memory: the models in it, least recently used first out."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._models: OrderedDict[str, int] = OrderedDict()

    def load(self, name: str, size_bytes: int) -> bool:
        """Puts a model into memory, pushing others out; True when it was not there before."""
        if name in self._models:
            self._models.move_to_end(name)
            return False
        self._models[name] = size_bytes
        while len(self._models) > 1 and self.used_bytes > self._card.vram_bytes:
            self._models.popitem(last=False)
        return True

    def unload(self) -> None:
        self._models.clear()

    @property
    def used_bytes(self) -> int:
        return sum(self._models.values())

    @property
    def free_bytes(self) -> int:
        return max(0, self._card.vram_bytes - self.used_bytes)

    @property
    def resident(self) -> list[str]:
        """Names of the models in memory, the one used last at the end."""
        return list(self._models)

    def missing_bytes(self, width: int, height: int, batch: int) -> int:
        """By how much work on such a batch would not fit beside the model used last; 0 when it fits."""
        needed = width * height * batch * WORK_BYTES_PER_PIXEL + next(reversed(self._models.values()), 0)
        return 0 if self._card.kind == "cpu" else max(0, needed - self._card.vram_bytes)
