"""The order of the workers that could take a job now."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.placement import Candidate, least_loaded

candidates = st.lists(
    st.builds(
        Candidate,
        worker=st.sampled_from(["a", "b", "c", "d"]),
        held=st.integers(0, 2),
        gpu_busy=st.sampled_from([0.0, 0.5, 1.0]),
        vram_free_bytes=st.sampled_from([1, 2]),
    ),
    unique_by=lambda one: one.worker,
)


def card(worker: str, **facts: Any) -> Candidate:
    return dataclasses.replace(Candidate(worker, held=0, gpu_busy=0.0, vram_free_bytes=1), **facts)


def chosen(*among: Candidate, avoid: str = "") -> str | None:
    found = least_loaded(among, avoid=avoid)
    return found.worker if found is not None else None


def test_nobody_is_chosen_from_nobody() -> None:
    assert chosen() is None


def test_who_holds_less_comes_first_then_the_idler_card_then_the_emptier_one() -> None:
    assert chosen(card("a", held=1), card("b", gpu_busy=1.0)) == "b"
    assert chosen(card("a", gpu_busy=0.9), card("b", gpu_busy=0.1)) == "b"
    assert chosen(card("a"), card("b", vram_free_bytes=2)) == "b"
    assert chosen(card("b"), card("a")) == "a"


def test_where_the_last_attempt_failed_comes_last_but_before_nobody() -> None:
    assert chosen(card("a"), card("b", held=1), avoid="a") == "b"
    assert chosen(card("a"), avoid="a") == "a"


@settings(deadline=None)
@given(candidates, st.sampled_from(["", "a", "b"]), st.randoms(use_true_random=False))
def test_the_choice_does_not_hang_on_the_order(among: list[Candidate], avoid: str, rng: Any) -> None:
    other = list(among)
    rng.shuffle(other)
    assert least_loaded(among, avoid=avoid) == least_loaded(other, avoid=avoid)


@settings(deadline=None)
@given(candidates, st.sampled_from(["", "a", "b"]))
def test_nobody_better_was_passed_over(among: list[Candidate], avoid: str) -> None:
    found = least_loaded(among, avoid=avoid)
    for other in among:
        assert found is not None
        assert found.worker != avoid or other.worker == avoid
        assert avoid in (found.worker, other.worker) or found.held <= other.held
