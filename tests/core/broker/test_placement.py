"""What each policy makes of the workers it is shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.placement import POLICIES, Candidate, Choice, Policy, Waiting, finish_time
from broker.protocol.records import Why

MODELS = ("checkpoints/xl.safetensors",)

candidates = st.lists(
    st.builds(
        Candidate,
        worker=st.sampled_from(["a", "b", "c", "d"]),
        room=st.booleans(),
        held=st.integers(0, 2),
        wait_ms=st.integers(0, 20_000),
        load_ms=st.sampled_from([0, 11_000]),
        run_ms=st.integers(1, 20_000),
        missing=st.sampled_from([(), MODELS]),
        given=st.integers(0, 9),
        speed=st.sampled_from([0.2, 1.0]),
        failed_here=st.booleans(),
    ),
    unique_by=lambda one: one.worker,
    min_size=1,
).filter(lambda among: any(one.room for one in among))
waitings = st.builds(Waiting, alike=st.integers(1, 9), others=st.integers(0, 99), patient=st.booleans())
policies = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def card(worker: str, **facts: Any) -> Candidate:
    plain = Candidate(worker, room=True, held=0, wait_ms=0, load_ms=0, run_ms=4_000)
    return plain._replace(**facts)


def cold(worker: str, **facts: Any) -> Candidate:
    """One that would have to load the models."""
    return card(worker, missing=MODELS, load_ms=11_000)._replace(**facts)


def full(worker: str, **facts: Any) -> Candidate:
    return card(worker, room=False, held=2)._replace(**facts)


# ---- the least expected finish


def test_the_job_goes_where_it_is_done_soonest() -> None:
    assert finish_time([card("a"), card("b", run_ms=3_000)], Waiting()) == Choice("b", Why.SOONEST)
    assert finish_time([card("a", wait_ms=2_000, held=1), card("b", run_ms=5_000)], Waiting()).worker == "b"
    assert finish_time([card("a", wait_ms=2_000, held=1), card("b", run_ms=7_000)], Waiting()).worker == "a"


def test_who_holds_the_models_saves_the_load() -> None:
    assert finish_time([cold("a"), card("b", run_ms=9_000)], Waiting()) == Choice("b", Why.HOLDS_MODELS)
    assert finish_time([cold("a"), card("b", run_ms=16_000)], Waiting()) == Choice("a", Why.SOONEST)


def test_a_job_waits_for_the_holder_as_long_as_that_is_sooner() -> None:
    assert finish_time([cold("a"), full("b", wait_ms=10_000)], Waiting()) == Choice("b", Why.HOLDS_MODELS, now=False)
    assert finish_time([cold("a"), full("b", wait_ms=12_000)], Waiting()) == Choice("a", Why.SOONEST)


def test_a_job_that_has_waited_long_enough_waits_no_more() -> None:
    assert finish_time([cold("a"), full("b", wait_ms=9_000)], Waiting(patient=False)).now


def test_when_more_wait_than_the_holder_can_serve_meanwhile_another_one_loads() -> None:
    among = [cold("a"), full("b", wait_ms=2_000)]  # b: done at 6, 10 and 14 s; a at 15 s
    assert not finish_time(among, Waiting(alike=3)).now
    assert finish_time(among, Waiting(alike=4)) == Choice("a", Why.SOONEST)
    assert not finish_time(among, Waiting(alike=3, others=1_000)).now, "the holder serves its own first"


def test_the_tail_of_a_burst_is_not_begun_on_a_slow_card() -> None:
    among = [card("slow", run_ms=20_000), full("fast", wait_ms=3_000)]  # fast: done at 7, 11, 15 and 19 s
    assert finish_time(among, Waiting(alike=4)) == Choice("fast", Why.SOONEST, now=False)
    assert finish_time(among, Waiting(alike=5)) == Choice("slow", Why.SOONEST)
    assert finish_time(among, Waiting(alike=2, others=3)).now, "the fast one has those to serve, too"


def test_where_it_failed_a_job_goes_last_but_rather_there_than_wait() -> None:
    assert finish_time([card("a", failed_here=True), card("b", wait_ms=60_000)], Waiting()).worker == "b"
    assert finish_time([card("a", failed_here=True), full("b", wait_ms=60_000)], Waiting()) == Choice("a", Why.SOONEST)
    assert finish_time([card("a", failed_here=True)], Waiting()) == Choice("a", Why.ONLY_ONE)


# ---- the others


def test_affinity_asks_for_the_models_and_then_for_the_least_held() -> None:
    policy = POLICIES["affinity_only"]
    assert policy([cold("a"), card("b", held=1)], Waiting()) == Choice("b", Why.HOLDS_MODELS)
    assert policy([card("a", held=1), card("b")], Waiting()).worker == "b"
    assert policy([cold("a"), full("b")], Waiting()) == Choice("a", Why.SOONEST)


def test_least_loaded_counts_attempts_and_then_what_they_take() -> None:
    policy = POLICIES["least_loaded"]
    assert policy([card("a", held=1), cold("b")], Waiting()) == Choice("b", Why.LEAST_LOADED)
    assert policy([card("a", wait_ms=2), card("b", wait_ms=1)], Waiting()).worker == "b"


def test_a_card_twice_as_fast_has_its_turn_twice_as_often() -> None:
    given = {"slow": 0, "fast": 0}
    for _ in range(30):
        among = [card(name, given=given[name], speed=2.0 if name == "fast" else 1.0) for name in given]
        given[POLICIES["round_robin_weighted"](among, Waiting()).worker] += 1
    assert given == {"slow": 10, "fast": 20}


# ---- all of them


@policies
@given(among=candidates, waiting=waitings, rng=st.randoms(use_true_random=False))
def test_the_choice_does_not_hang_on_the_order(
    policy: Policy, among: list[Candidate], waiting: Waiting, rng: Any
) -> None:
    other = list(among)
    rng.shuffle(other)
    assert policy(among, waiting) == policy(other, waiting)


@policies
@given(among=candidates, waiting=waitings)
def test_what_is_sent_now_goes_to_a_worker_with_room(policy: Policy, among: list[Candidate], waiting: Waiting) -> None:
    choice = policy(among, waiting)
    chosen = next(one for one in among if one.worker == choice.worker)
    assert chosen.room == choice.now


@given(among=candidates, waiting=waitings)
def test_a_job_waits_only_for_a_worker_that_would_have_it_done_sooner(among: list[Candidate], waiting: Waiting) -> None:
    choice = finish_time(among, waiting)
    chosen = next(one for one in among if one.worker == choice.worker)
    ready = [one for one in among if one.room]
    if choice.now:
        assert all(chosen.failed_here or other.failed_here >= chosen.failed_here for other in ready)
        alike = [other for other in ready if other.failed_here == chosen.failed_here]
        assert chosen.finish_ms == min(other.finish_ms for other in alike)
    else:
        assert waiting.patient
        assert all(other.failed_here or chosen.finish_ms <= other.finish_ms for other in ready)
