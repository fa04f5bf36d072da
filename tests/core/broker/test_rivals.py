"""Which job goes before the one whose turn it is, when models would have to be loaded."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.rivals import LOADS
from broker.core.rooms import HOLDERS
from broker.core.rules import Rules
from broker.protocol.records import ProgressKind, Why
from tests.core.broker.given import NEEDS, Given, Session

A, B, C = (f"checkpoints/{name}.safetensors" for name in "abc")


@pytest.fixture
def given() -> Given:
    # One job in sixteen goes by its age: so many are not submitted here.
    return Given(Rules())


def submit(given: Given, number: int, model: str, **changes: object) -> str:
    needs = dataclasses.replace(NEEDS, models=(model,), pixels=1 << 20, steps=20, signature=model)
    return given.submitted(number, needs=needs, **changes)


def card(given: Given, name: str) -> Session:
    joined = given.worker(name)
    joined.announces()
    joined.offers(*NEEDS.nodes, models=(A, B, C))
    return joined


def sent(given: Given, worker: Session) -> str:
    """What a worker with room is sent in the next turn; it is done at once, so that its models are loaded."""
    worker.has_room()
    given.tick()
    job, attempt = worker.dispatched[-1]
    worker.accepts(job, attempt)
    worker.completes(job, attempt)
    return job


def why(given: Given, job: str) -> Why | None:
    decision = next(line.decision for line in reversed(given.story[job]) if line.decision is not None)
    return decision.why


def test_a_job_whose_models_are_loaded_goes_first(given: Given) -> None:
    gpu = card(given, "gpu-1")
    sent_first = submit(given, 1, A)
    assert sent(given, gpu) == sent_first
    other, same = submit(given, 2, B), submit(given, 3, A)
    assert [sent(given, gpu), sent(given, gpu)] == [same, other]
    assert why(given, same) is Why.HOLDS_MODELS


def test_else_the_models_are_loaded_for_which_most_waits(given: Given) -> None:
    gpu = card(given, "gpu-1")
    first = submit(given, 1, A)
    many = [submit(given, number, B) for number in range(2, 6)]
    assert sent(given, gpu) == many[0]
    assert why(given, many[0]) is Why.MOST_WAITS
    assert [sent(given, gpu) for _ in range(4)] == [*many[1:], first]


def test_a_job_is_passed_over_for_as_long_as_a_few_loads_take_also_by_what_comes_later(given: Given) -> None:
    gpu = card(given, "gpu-1")
    first = submit(given, 1, A)
    many = [submit(given, number, B) for number in range(2, 5)]
    assert sent(given, gpu) == many[0]
    late = submit(given, 5, B)
    assert [sent(given, gpu) for _ in range(3)] == [*many[1:], late]
    submit(given, 6, B)
    gpu.has_room(0)
    given.passes(LOADS * given.fleet.leases.estimates.load_ms(A, "") + 1, gpu)
    assert sent(given, gpu) == first


def test_work_that_waits_is_shared_by_all_who_hold_its_models(given: Given) -> None:
    """Two workers have loaded B already: a third load of it is worth less than the first one of C."""
    one, two, three = (card(given, f"gpu-{number}") for number in (1, 2, 3))
    for number, gpu in enumerate((one, two), start=1):
        job = submit(given, number, B, pin=gpu.name)
        gpu.has_room()
        given.tick()
        assert gpu.dispatched == [(job, 1)]
        gpu.accepts(job)
        gpu.reports(job, 1, ProgressKind.STARTED)
        gpu.has_room(0)
    lone, *_ = [submit(given, number, model) for number, model in enumerate((B, B, B, C, C), start=20)]
    given.passes(60_000, one, two, three)  # nobody is let wait for the two for so long
    three.has_room()
    given.tick()
    ((job, _),) = three.dispatched
    assert given.records[job].needs.models == (C,)
    assert job != lone


def test_a_job_that_has_waited_long_is_worth_its_load(given: Given) -> None:
    gpu = card(given, "gpu-1")
    first = submit(given, 1, A)
    given.passes(120_000, gpu)
    for number in range(2, 6):
        submit(given, number, B)
    assert sent(given, gpu) == first


def test_no_job_goes_before_one_of_a_higher_priority(given: Given) -> None:
    gpu = card(given, "gpu-1")
    first = submit(given, 1, A, priority=1)
    for number in range(2, 6):
        submit(given, number, B)
    assert sent(given, gpu) == first


def test_what_needs_a_load_is_not_sent_ahead_to_a_busy_worker(given: Given) -> None:
    gpu = card(given, "gpu-1")
    runs = submit(given, 1, A)
    gpu.has_room(2)
    given.tick()
    gpu.accepts(runs)
    cold, warm = submit(given, 2, B), submit(given, 3, A)
    gpu.has_room(1)
    given.tick()
    assert gpu.dispatched == [(runs, 1), (warm, 1)]
    gpu.accepts(warm)
    for job in (runs, warm):
        gpu.completes(job)
    gpu.has_room(2)
    given.tick()
    assert gpu.dispatched[2:] == [(cold, 1)]


def test_a_worker_with_room_that_holds_the_models_is_found_among_many_that_have_none(given: Given) -> None:
    full = [card(given, f"full-{number}") for number in range(2 * HOLDERS)]
    for number, gpu in enumerate(full, start=1):
        job = submit(given, number, A, pin=gpu.name)
        gpu.has_room()
        given.tick()
        gpu.accepts(job)
        gpu.reports(job, 1, ProgressKind.STARTED)
    holder = card(given, "holder")
    submit(given, 100, A, pin="holder")
    sent(given, holder)
    for gpu in (*[card(given, f"idle-{number}") for number in range(3)], holder):
        gpu.has_room()
    job = submit(given, 200, A)
    given.tick()
    assert given.records[job].worker == "holder"
