"""What is expected before anything was seen, what is learnt from what ran, and which models a ComfyUI is left with."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core import cards, estimates
from broker.core.estimates import LONGEST_MS, Estimates, Figure
from broker.core.resident import after, keeps_more
from broker.protocol.records import Needs
from tests.core.broker.given import NEEDS

XL = "checkpoints/xl.safetensors"
PICTURE = dataclasses.replace(NEEDS, pixels=1 << 20, steps=20, signature="xl", models=(XL,))


def bigger(needs: Needs, times: int) -> Needs:
    return dataclasses.replace(needs, pixels=needs.pixels * times)


@pytest.mark.parametrize(
    ("name", "kind", "speed"),
    [
        ("NVIDIA GeForce RTX 4090", "cuda", 1.0),
        ("NVIDIA GeForce RTX 4070 Ti", "cuda", 0.55),
        ("NVIDIA L40S", "cuda", 0.85),
        ("NVIDIA L4", "cuda", 0.25),
        ("Some Card 9", "cuda", 1.0),
        ("AMD EPYC", "cpu", cards.CPU_SPEED),
    ],
)
def test_a_card_is_thought_as_fast_as_cards_of_its_name(name: str, kind: str, speed: float) -> None:
    assert cards.speed_of(name, kind) == speed


def test_a_slower_card_is_expected_to_take_longer_and_a_larger_picture_too() -> None:
    known = Estimates()
    known.know_card("fast", "NVIDIA GeForce RTX 4090", "cuda")
    known.know_card("slow", "NVIDIA T4", "cuda")
    assert known.run_ms(PICTURE, "slow") > 5 * known.run_ms(PICTURE, "fast")
    assert known.run_ms(bigger(PICTURE, 4), "fast") == pytest.approx(4 * known.run_ms(PICTURE, "fast"), rel=0.01)


def test_names_that_never_come_back_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "FIGURES", 3)
    known = Estimates()
    for name in ("a", "b", "c", "a", "d"):
        known.know_card(name, "NVIDIA T4", "cuda")
    assert (known.speed("a"), known.speed("b"), known.speed("d")) == (0.13, 1.0, 0.13), "b was heard of longest ago"


def test_what_was_measured_counts_for_every_size_on_that_worker_and_by_speed_on_others() -> None:
    known = Estimates()
    for _ in range(30):
        known.ran(PICTURE, "a", 8_000)
        known.ran(PICTURE, "b", 2_000)
    assert known.run_ms(bigger(PICTURE, 2), "a") == pytest.approx(16_000, rel=0.01)
    other = dataclasses.replace(PICTURE, signature="flux")
    known.ran(other, "a", 40_000)
    assert known.run_ms(other, "b") == pytest.approx(10_000, rel=0.1), "b is four times as fast as a"


def test_a_load_is_learnt_where_it_happened_then_anywhere_and_before_that_taken_from_the_size() -> None:
    known = Estimates()
    assert known.load_ms(XL, "a") == cards.size_of(XL) // cards.LOAD_BYTES_PER_MS
    known.loaded((XL,), "a", 20_000)
    assert known.load_ms(XL, "a") == known.load_ms(XL, "b") == 20_000
    assert (known.usual_load_ms("a"), known.usual_load_ms("b")) == (20_000, None)


def test_what_anything_takes_is_learnt_there_and_before_that_guessed_from_the_card() -> None:
    known = Estimates()
    known.know_card("a", "NVIDIA GeForce RTX 3090", "cuda")
    assert known.usual_run_ms("a") == pytest.approx(cards.RUN_MS / 0.55, rel=0.01)
    for running_ms in (2_000, 6_000):
        known.took("a", running_ms)
    assert (known.usual_run_ms("a"), known.usual_run_ms("b")) == (3_000, cards.RUN_MS)


def test_two_models_share_a_load_as_they_were_expected_to() -> None:
    known = Estimates()
    large, small = "checkpoints/large", "controlnet/small"
    known.loaded((large, small), "w", 9_000)
    assert known.load_ms(large, "w") == pytest.approx(6_500, rel=0.01)
    assert known.load_ms(small, "w") == pytest.approx(2_500, rel=0.01)


def test_no_size_that_a_workflow_claims_is_expected_to_run_for_ever() -> None:
    vast = dataclasses.replace(PICTURE, pixels=2**53, steps=2**31)
    known = Estimates()
    assert known.run_ms(vast, "a") <= LONGEST_MS and known.reference_ms(vast) <= LONGEST_MS
    known.ran(PICTURE, "a", 10**9)
    assert known.run_ms(vast, "a") <= LONGEST_MS


def test_no_time_that_a_worker_claims_grows_past_what_can_be_told() -> None:
    known = Estimates()
    known.loaded((XL, "loras/a.safetensors"), "liar", 2**53)
    known.ran(PICTURE, "liar", 2**53)
    for worker in ("liar", "honest"):
        assert known.load_ms(XL, worker) + known.load_ms("loras/a.safetensors", worker) <= LONGEST_MS
    known.took("liar", 2**53)
    assert known.usual_load_ms("liar") == known.usual_run_ms("liar") == LONGEST_MS
    assert known.run_ms(PICTURE, "liar") <= LONGEST_MS


def test_a_job_whose_size_is_not_told_is_as_large_as_what_takes_as_long() -> None:
    known, unsized = Estimates(), dataclasses.replace(PICTURE, pixels=0, signature="upscale")
    assert known.size(PICTURE) == 20 << 20
    assert 0.5 < known.size(unsized) / known.size(PICTURE) < 2, "before it was seen it is thought a picture"
    known.ran(PICTURE, "gpu-1", 4_000)
    known.ran(unsized, "gpu-1", 400_000)
    assert known.size(unsized) == pytest.approx(100 * known.size(PICTURE))


def test_what_was_learnt_is_handed_out_once_and_comes_back() -> None:
    known, again = Estimates(), Estimates()
    known.ran(PICTURE, "a", 8_000)
    known.loaded((XL,), "a", 20_000)
    for figure in known.unsaved():
        again.recall(figure)
    assert not list(known.unsaved())
    assert again.run_ms(PICTURE, "a") == known.run_ms(PICTURE, "a") and again.load_ms(XL, "a") == 20_000


@pytest.mark.parametrize(
    "figure",
    [
        Figure("speed", "gpu-0", "", 0.0, 1),
        Figure("load", "m", "gpu-0", float("inf"), 1),
        Figure("any", "gpu-0", "", float("inf"), 1),
        Figure("run", NEEDS.signature, "gpu-0", -1e9, 1),
        Figure("reference", NEEDS.signature, "", -1e9, 1),
    ],
)
def test_what_nobody_can_have_measured_is_not_taken_over(figure: Figure) -> None:
    """It would stop each start of the broker, or make whatever waits there worth more than all else."""
    recalled, fresh = Estimates(), Estimates()
    recalled.recall(figure)
    for known in (recalled, fresh):
        told = known.run_ms(NEEDS, "gpu-0"), known.load_ms("m", "gpu-0"), known.usual_run_ms("gpu-0")
        assert min(told) > 0 and max(told) <= LONGEST_MS
    assert recalled.run_ms(NEEDS, "gpu-0") == fresh.run_ms(NEEDS, "gpu-0")


def test_how_wrong_it_was_is_told_as_a_median() -> None:
    known = Estimates()
    assert known.median_error() is None
    for expected_ms in (1_000, 1_500, 100_000_000):
        known.turned_out(expected_ms, 1_000)
    assert known.median_error() == 0.5


# ---- which models stay


@pytest.mark.parametrize(
    ("version", "more"),
    [
        ("0.3.64", False),
        ("v0.3.34", False),
        ("0.4.0", True),
        ("0.45.2", True),
        ("1.0", True),
        ("", False),
        ("x.y", False),
    ],
)
def test_releases_after_the_third_keep_more_than_the_last_prompts_models(version: str, more: bool) -> None:
    assert keeps_more(version) is more


def test_an_older_comfyui_keeps_the_last_prompts_models_alone() -> None:
    assert after(("a", "b"), ("c",), keeps_more=False, vram_bytes=100, size=lambda model: 1) == ("c",)


def test_a_newer_one_keeps_what_fits_and_lets_go_of_what_was_used_longest_ago() -> None:
    sizes = {"a": 30, "b": 30, "c": 30, "huge": 500}
    held = after(("a", "b"), ("c",), keeps_more=True, vram_bytes=100, size=sizes.__getitem__)
    assert held == ("b", "c"), "four fifths of the card are for models"
    assert after(held, ("b",), keeps_more=True, vram_bytes=100, size=sizes.__getitem__) == ("c", "b")
    assert after(held, ("huge",), keeps_more=True, vram_bytes=100, size=sizes.__getitem__) == ("huge",)
