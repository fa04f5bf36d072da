"""What the card and the host do right now, for heartbeats. Never raises, and costs a few milliseconds a second at most.

NVML is asked when it is installed (the extra `gpu`) and has a card of the name that ComfyUI says it uses; else memory
is what ComfyUI last said, and the rest stays unknown. Owns the NVML session.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable
from typing import Any, Final

import psutil

from broker.protocol.records import Gpu, Stats
from comfyui.replies import SystemStats

#: A reading younger than this is given again.
FRESH_MS: Final = 1_000
_BYTES_MAX: Final = 2**53

log = logging.getLogger(__name__)


class Gauge:
    def __init__(self, nvml: Any = None) -> None:
        """nvml: the module pynvml after nvmlInit, or None (see `nvml`)."""
        self._nvml = nvml
        self._card: Any = None
        #: The driver knows the card and not its memory: it shares the host's, or is gone.
        self._memory_hidden = False
        #: (free, total) as ComfyUI said.
        self._vram_bytes = (0, 0)
        self._stats: Stats | None = None
        self._taken_ms = 0
        psutil.cpu_percent()  # the first call only starts the measuring

    @property
    def needs_comfy(self) -> bool:
        """Whether the card's memory is known from ComfyUI alone."""
        return self._card is None or self._memory_hidden

    def choose(self, gpu: Gpu, index: int | None) -> None:
        """ComfyUI works on this card. index: its place among the cards ComfyUI sees, if it said."""
        named = self._ask(_cards)
        same = [card for name, card in named if name == gpu.name] if named is not None else []
        self._card = same[index if index is not None and index < len(same) else 0] if same else None
        measured_by = "ComfyUI" if self.needs_comfy else "NVML"
        log.info("card", extra={"fields": {"name": gpu.name, "kind": gpu.kind, "measured_by": measured_by}})

    def told(self, stats: SystemStats) -> None:
        """What ComfyUI says of its card's memory."""
        if stats.devices:
            self._vram_bytes = (stats.devices[0].vram_free_bytes, stats.devices[0].vram_total_bytes)

    def read(self, now_ms: int, *, comfy_queue: int, comfy_fault: str) -> Stats:
        """comfy_queue: prompts in ComfyUI's queue, ours and others'. comfy_fault: why it does not answer, if so."""
        if self._stats is None or now_ms - self._taken_ms >= FRESH_MS:
            self._stats, self._taken_ms = self._measure(), now_ms
        return dataclasses.replace(self._stats, comfy_queue=min(comfy_queue, 2**31), comfy_fault=comfy_fault)

    def _measure(self) -> Stats:
        card, ram = self._card, psutil.virtual_memory()
        memory = self._of_card(lambda nvml: nvml.nvmlDeviceGetMemoryInfo(card))
        self._memory_hidden = memory is None
        free_bytes, total_bytes = (memory.free, memory.total) if memory is not None else self._vram_bytes
        busy_percent = self._of_card(lambda nvml: nvml.nvmlDeviceGetUtilizationRates(card).gpu)
        celsius = self._of_card(lambda nvml: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU))
        milliwatts = self._of_card(lambda nvml: nvml.nvmlDeviceGetPowerUsage(card))
        return Stats(
            gpu_busy=None if busy_percent is None else _within(busy_percent / 100, 0.0, 1.0),
            vram_free_bytes=min(free_bytes, _BYTES_MAX),
            vram_total_bytes=min(total_bytes, _BYTES_MAX),
            gpu_celsius=None if celsius is None else int(_within(celsius, -50, 200)),
            gpu_watts=None if milliwatts is None else int(_within(milliwatts / 1_000, 0, 5_000)),
            ram_free_bytes=ram.available,
            ram_total_bytes=ram.total,
            disk_free_bytes=_disk_free_bytes(),
            cpu_busy=_within(psutil.cpu_percent() / 100, 0.0, 1.0),
            comfy_queue=0,
            comfy_fault="",
        )

    def _of_card(self, question: Callable[[Any], Any]) -> Any:
        return None if self._card is None else self._ask(question)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """NVML's answer; None where it has none."""
        if self._nvml is None:
            return None
        try:
            return question(self._nvml)
        except self._nvml.NVMLError:
            return None  # not supported by this card, or the card is gone


def nvml() -> Any:
    """The module pynvml, ready for use; None where there is no such module, driver or card."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _cards(nvml: Any) -> list[tuple[str, Any]]:
    """Name and handle of each card."""
    cards = [nvml.nvmlDeviceGetHandleByIndex(place) for place in range(nvml.nvmlDeviceGetCount())]
    return [(_text(nvml.nvmlDeviceGetName(card)), card) for card in cards]


def _disk_free_bytes() -> int | None:
    """Of the folder where files on their way are spooled (errands.py)."""
    try:
        return min(psutil.disk_usage(tempfile.gettempdir()).free, _BYTES_MAX)
    except OSError:
        return None


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name  # bytes before version 12


def _within(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))
