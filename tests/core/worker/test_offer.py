"""What a worker says of itself."""

from __future__ import annotations

import pytest

from broker.protocol.codec import WORKER_SENDS, decode, encode
from comfyui.catalogue import Offers
from comfyui.replies import Device, SystemStats
from worker.core.offer import LIST_BYTES, capabilities, card_name, facts


def device(name: str) -> Device:
    return Device(name=name, type="cuda", index=0, vram_total_bytes=2**60, vram_free_bytes=1)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("cuda:0 NVIDIA H200 : cudaMallocAsync", "NVIDIA H200"),
        ("cuda:0 NVIDIA GeForce RTX 4090 : native", "NVIDIA GeForce RTX 4090"),
        ("cuda:1 AMD Radeon", "AMD Radeon"),
        ("cpu", "cpu"),
        ("", ""),
    ],
)
def test_a_card_has_its_makers_name(said: str, name: str) -> None:
    assert card_name(device(said)) == name


def test_facts_of_a_server_without_devices() -> None:
    stats = SystemStats((), "", 0, 0, (), "", ())
    said = facts(stats, capabilities="c" * 64, simulated=True)
    assert said.gpu.name == "" and said.simulated
    big = SystemStats((1,), "1", 0, 0, (device("cpu"),), "", ())
    assert facts(big, capabilities="c" * 64, simulated=False).gpu.vram_total_bytes == 2**53


def test_what_is_offered_always_fits_one_message() -> None:
    many = tuple(f"checkpoints/{number:05}-{'ü' * 400}" for number in range(3_000))
    said, left_out = capabilities("c" * 64, Offers(("A", "B\0", "C" * 300), many))
    assert said.nodes == ("A",)
    assert left_out == 2 + len(many) - len(said.models)
    assert decode(encode(said), WORKER_SENDS) == said
    assert sum(len(name.encode()) for name in said.models) <= LIST_BYTES
