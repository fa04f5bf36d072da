"""Cards, their pace and their memory, without a clock."""

import math

import pytest

from comfyui.simulator.cards import CARDS, GIB, Memory, Pace, card


def test_a_faster_card_is_faster_at_everything() -> None:
    slow, fast = Pace(CARDS["rtx-3060"]), Pace(CARDS["rtx-4090"])
    assert fast.step_s(1024, 1024, 1) < slow.step_s(1024, 1024, 1)
    assert fast.load_s(7 * 10**9) < slow.load_s(7 * 10**9)


def test_work_grows_with_pixels_and_pictures() -> None:
    pace = Pace(CARDS["rtx-4090"])
    assert pace.step_s(1024, 1024, 2) == pytest.approx(2 * pace.step_s(1024, 1024, 1))
    assert pace.step_s(2048, 1024, 1) == pytest.approx(2 * pace.step_s(1024, 1024, 1))
    assert pace.step_s(8, 8, 1) == pace.step_s(16, 16, 1) > 0


def test_speed_divides_and_infinity_is_no_work() -> None:
    one, ten = Pace(CARDS["l4"]), Pace(CARDS["l4"], 10)
    assert one.step_s(512, 512, 1) == pytest.approx(10 * ten.step_s(512, 512, 1))
    none = Pace(CARDS["l4"], math.inf)
    assert none.step_s(512, 512, 1) == none.load_s(10**10) == none.tile_s() == none.words_s() == 0


def test_figures_can_be_given() -> None:
    own = card("rtx-4090", vram_bytes=8 * GIB, step_s=0.5, load_s=7.0)
    assert (own.vram_bytes, own.step_s, own.load_bytes_per_s) == (8 * GIB, 0.5, 1e9)
    with pytest.raises(KeyError):
        card("voodoo")


def test_the_model_used_last_stays() -> None:
    memory = Memory(card("rtx-4090", vram_bytes=10))
    assert memory.load("a", 6)
    assert not memory.load("a", 6)
    assert memory.load("b", 3)
    assert memory.resident == ["a", "b"]
    memory.load("a", 6)
    assert memory.load("c", 4)
    assert memory.resident == ["a", "c"]
    assert memory.free_bytes == 0
    memory.unload()
    assert memory.free_bytes == 10


def test_a_model_larger_than_the_card_is_loaded_alone() -> None:
    memory = Memory(card("rtx-4090", vram_bytes=10))
    memory.load("a", 4)
    assert memory.load("huge", 50)
    assert memory.resident == ["huge"]
    assert memory.free_bytes == 0


def test_work_that_does_not_fit_is_known_before() -> None:
    memory = Memory(card("gtx-1650"))
    memory.load("small", GIB)
    assert memory.missing_bytes(1024, 1024, 1) == 0
    assert memory.missing_bytes(2048, 2048, 4) > 0
    assert Memory(card("cpu")).missing_bytes(8192, 8192, 64) == 0
