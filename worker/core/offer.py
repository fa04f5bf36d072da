"""What a worker says of itself, made from what its ComfyUI says. Pure.

ComfyUI's words are untrusted: whatever leaves here fits the contract.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from broker.protocol.records import Gpu
from broker.protocol.worker import Capabilities
from comfyui.catalogue import Offers
from comfyui.replies import Device, SystemStats
from comfyui.words import plain
from worker.core.link import Facts

ITEMS: Final = 20_000
#: Of all node classes, and again of all models: both lists and their framing fit one message of the contract.
LIST_BYTES: Final = 450_000


def facts(stats: SystemStats, *, capabilities: str, simulated: bool) -> Facts:
    """capabilities: digest of the capability document."""
    device = stats.devices[0] if stats.devices else None
    gpu = Gpu(name="", kind="", vram_total_bytes=0)
    if device is not None:
        gpu = Gpu(name=card_name(device), kind=device.type, vram_total_bytes=min(device.vram_total_bytes, 2**53))
    return Facts(comfyui_version=stats.version_text, simulated=simulated, capabilities=capabilities, gpu=gpu)


def card_name(device: Device) -> str:
    """The card as its maker calls it: "NVIDIA H200" for "cuda:0 NVIDIA H200 : cudaMallocAsync"."""
    name = re.sub(r"\A\w+:\d+ ", "", device.name).rpartition(" : ")
    return (name[0] if name[0] else name[2]).strip()


def capabilities(digest: str, offers: Offers) -> tuple[Capabilities, int]:
    """The message, and how many names did not fit in it: jobs that need one of those will not come here."""
    nodes, models = _fitting(offers.nodes, 200), _fitting(offers.models, 500)
    left_out = len(offers.nodes) - len(nodes) + len(offers.models) - len(models)
    return Capabilities(digest=digest, nodes=nodes, models=models), left_out


def _fitting(names: Iterable[str], longest: int) -> tuple[str, ...]:
    kept: list[str] = []
    room_bytes = LIST_BYTES
    for name in names:
        if len(kept) < ITEMS and plain(name, longest) == name:
            room_bytes -= len(name.encode()) + 5
            if room_bytes < 0:
                break
            kept.append(name)
    return tuple(kept)
