"""What makes each policy what it is, in fleets small enough to follow."""

from __future__ import annotations

import pytest

from broker.protocol.records import JobState
from comfyui.simulator.cards import GIB, Card
from scripts.laboratory.arena import Arena, Run
from scripts.laboratory.traffic import Death, Scenario
from scripts.laboratory.trials import OTHERS, POLICIES, PRODUCT
from tests.core.lab.fleets import PLAIN, SLOW, A, B, job, scenario

BIG = Card("big", "big", "cuda", 40 * GIB, 1.0, 1e9)


def run(policy: str, made: Scenario) -> Run:
    return Arena(made, POLICIES[policy](1)).run()


def cards(found: Run) -> list[int]:
    """The card of each job."""
    return [ran.card for ran in found.ran]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_job_is_done_once_on_a_card_that_is_able(policy: str) -> None:
    jobs = [job(n, submit_ms=900 * n, vram_bytes=(0, 20 * GIB)[n % 3 == 0]) for n in range(30)]
    found = run(policy, scenario(jobs, (PLAIN, BIG, SLOW, BIG)))
    assert [ran.job.number for ran in found.ran] == list(range(30))
    assert all(ran.job.submit_ms <= ran.began_ms < ran.ended_ms for ran in found.ran)
    assert {ran.card for ran in found.ran if ran.job.vram_bytes} <= {1, 3}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_dead_card_held_is_done_elsewhere_or_again(policy: str) -> None:
    found = run(policy, scenario([job(n) for n in range(8)], (PLAIN, PLAIN), deaths=(Death(0, 25_000, 40_000),)))
    assert len(found.ran) == 8
    assert 5_000 < found.wasted_ms <= 9_000  # most of the second picture, which begins at 16 s or a little later
    assert (found.resubmitted > 0) == (policy in OTHERS and policy != "HORDE")


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_run(policy: str) -> None:
    made = scenario([job(n, work=2 + n % 7, model=(A, B)[n % 2], submit_ms=500 * n) for n in range(30)], (PLAIN, SLOW))
    first, second = run(policy, made), run(policy, made)
    assert [(r.card, r.ended_ms) for r in first.ran] == [(r.card, r.ended_ms) for r in second.ran]


def test_round_robin_goes_round() -> None:
    assert sorted(cards(run("ROUND_ROBIN", scenario([job(n) for n in range(6)], (PLAIN, SLOW, PLAIN))))) == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]


def test_least_queue_does_not_see_what_is_under_way() -> None:
    """Four submits at once see four empty queues, and take the idle ones in turn; a later one sees them filled."""
    found = run("LEAST_QUEUE", scenario([*(job(n) for n in range(4)), job(4, submit_ms=1_000)], (PLAIN, PLAIN, PLAIN)))
    assert cards(found) == [0, 1, 2, 0, 1]


def test_swarm_loads_by_pressure_and_keeps_a_model_where_it_is() -> None:
    """Nothing is loaded for 1.5 s; then the model with more requests goes first, one load a model at a time."""
    jobs = [job(0, model=B), job(1), job(2), job(3), job(4)]
    found = run("SWARM", scenario(jobs, (PLAIN, PLAIN)))
    by_model = {model: {ran.card for ran in found.ran if ran.job.models == (model,)} for model in (A, B)}
    assert by_model[B] == {1} and 0 in by_model[A]
    assert min(ran.began_ms for ran in found.ran) > 1_500 + 6_000


def test_swarm_hands_a_raw_graph_to_the_first_free_usage() -> None:
    found = run("SWARM_RAW", scenario([job(n, model=(A, B)[n % 2]) for n in range(4)], (PLAIN, PLAIN)))
    assert cards(found) == [0, 1, 0, 1]


def test_horde_keeps_one_job_ahead_even_on_a_slow_card() -> None:
    found = run("HORDE", scenario([job(n) for n in range(4)], (PLAIN, SLOW)))
    assert cards(found).count(1) == 2


def test_cluster_gateway_prefers_the_fast_card_and_the_loaded_model() -> None:
    jobs = [job(0), job(1, model=B, submit_ms=17_000), job(2, submit_ms=17_000)]
    assert cards(run("CLUSTER_GATEWAY", scenario(jobs[:1], (SLOW, PLAIN)))) == [1]
    assert cards(run("CLUSTER_GATEWAY", scenario(jobs, (PLAIN, PLAIN)))) == [0, 1, 0]


@pytest.mark.parametrize("policy", PRODUCT)
def test_the_broker_itself_decides_and_has_nothing_left_over(policy: str) -> None:
    arena = Arena(scenario([job(n) for n in range(20)], (PLAIN, SLOW, PLAIN)), product := PRODUCT[policy](1))
    arena.run()
    for _ in range(20):  # the turn in which it hears of the last picture is one of these
        arena.agenda.step()
    assert product.fleet.jobs.counts[JobState.SUCCEEDED] == 20
    assert not product.fleet.jobs.live
