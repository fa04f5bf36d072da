"""What is measured of card and host, with a driver made up."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from broker.protocol.codec import WORKER_SENDS, decode, encode
from broker.protocol.records import Gpu, Stats
from broker.protocol.worker import Heartbeat
from comfyui.replies import Device, SystemStats
from worker import gpu
from worker.gpu import FRESH_MS, Gauge

CARD = Gpu(name="NVIDIA H200", kind="cuda", vram_total_bytes=1 << 37)
TOLD = SystemStats((), "", 0, 0, (Device("cpu", "cpu", None, 900, 300),), "", ())


class NvmlError(Exception):
    pass


class Driver:
    """The calls of pynvml that are used; `broken` names those that fail."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, names: list[str | bytes], broken: frozenset[str] = frozenset()) -> None:
        self.names = names
        self.broken = broken
        self.calls = 0

    def _tell(self, what: str, value: Any) -> Any:
        self.calls += 1
        if what in self.broken:
            raise NvmlError("not supported")
        return value

    def nvmlInit(self) -> None:
        self._tell("init", None)

    def nvmlDeviceGetCount(self) -> int:
        return int(self._tell("count", len(self.names)))

    def nvmlDeviceGetHandleByIndex(self, place: int) -> int:
        return place

    def nvmlDeviceGetName(self, card: int) -> Any:
        return self._tell("name", self.names[card])

    def nvmlDeviceGetMemoryInfo(self, card: int) -> Any:
        return self._tell("memory", SimpleNamespace(free=100 + card, total=1_000))

    def nvmlDeviceGetUtilizationRates(self, card: int) -> Any:
        return self._tell("busy", SimpleNamespace(gpu=150))

    def nvmlDeviceGetTemperature(self, card: int, _sensor: int) -> Any:
        return self._tell("celsius", 61)

    def nvmlDeviceGetPowerUsage(self, card: int) -> Any:
        return self._tell("watts", 250_400)


def read(gauge: Gauge, now_ms: int = 0) -> Stats:
    stats = gauge.read(now_ms, comfy_queue=2, comfy_fault="gone")
    beat = Heartbeat(stats=stats, held=())
    assert decode(encode(beat), WORKER_SENDS) == beat
    return stats


def test_without_a_driver_memory_is_what_comfyui_says() -> None:
    gauge = Gauge()
    gauge.told(TOLD)
    gauge.choose(CARD, 0)
    stats = read(gauge)
    assert gauge.needs_comfy
    assert (stats.vram_free_bytes, stats.vram_total_bytes) == (300, 900)
    assert stats.gpu_busy is stats.gpu_celsius is stats.gpu_watts is None
    assert stats.ram_total_bytes > 0 and (stats.comfy_queue, stats.comfy_fault) == (2, "gone")


def test_room_on_the_disk_is_that_of_the_folder_where_files_are_spooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def usage(path: str) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=2**60)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(psutil, "disk_usage", usage)
    assert read(Gauge()).disk_free_bytes == 2**53  # what the contract holds at most
    assert asked == [str(tmp_path)]


def test_a_disk_that_cannot_be_asked_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert read(Gauge()).disk_free_bytes is None


def test_a_server_without_devices_says_nothing_of_memory() -> None:
    gauge = Gauge()
    gauge.told(SystemStats((), "", 0, 0, (), "", ()))
    assert read(gauge).vram_total_bytes == 0


def test_with_a_driver_the_card_of_that_name_is_measured() -> None:
    gauge = Gauge(Driver([b"NVIDIA T4", "NVIDIA H200"]))
    gauge.choose(CARD, 0)
    stats = read(gauge)
    assert not gauge.needs_comfy
    assert (stats.vram_free_bytes, stats.vram_total_bytes) == (101, 1_000)
    assert (stats.gpu_busy, stats.gpu_celsius, stats.gpu_watts) == (1.0, 61, 250)


@pytest.mark.parametrize(("index", "free"), [(None, 100), (1, 101), (7, 100)])
def test_among_cards_of_one_name_comfyui_says_which(index: int | None, free: int) -> None:
    gauge = Gauge(Driver(["NVIDIA H200", "NVIDIA H200"]))
    gauge.choose(CARD, index)
    assert read(gauge).vram_free_bytes == free


def test_a_card_of_another_name_is_not_ours() -> None:
    gauge = Gauge(Driver(["NVIDIA T4"]))
    gauge.choose(CARD, 0)
    assert gauge.needs_comfy


@pytest.mark.parametrize("broken", ["count", "name", "memory", "busy", "celsius", "watts"])
def test_whatever_the_driver_cannot_tell_is_unknown(broken: str) -> None:
    gauge = Gauge(Driver(["NVIDIA H200"], frozenset({broken})))
    gauge.told(TOLD)
    gauge.choose(CARD, 0)
    stats = read(gauge)
    assert gauge.needs_comfy == (broken in ("count", "name", "memory"))
    if gauge.needs_comfy:
        assert stats.vram_total_bytes == 900
    else:
        unknown = {"busy": stats.gpu_busy, "celsius": stats.gpu_celsius, "watts": stats.gpu_watts}
        assert unknown[broken] is None


def test_a_reading_is_kept_for_a_second() -> None:
    driver = Driver(["NVIDIA H200"])
    gauge = Gauge(driver)
    gauge.choose(CARD, 0)
    read(gauge, 1_000)
    before = driver.calls
    read(gauge, 1_000 + FRESH_MS - 1)
    assert driver.calls == before
    read(gauge, 1_000 + FRESH_MS)
    assert driver.calls > before


@pytest.mark.parametrize("broken", [frozenset(), frozenset({"init"})])
def test_a_library_without_a_driver_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, broken: frozenset[str]) -> None:
    driver = Driver([], broken)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    assert gpu.nvml() is (None if broken else driver)


def test_no_library_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.nvml() is None
