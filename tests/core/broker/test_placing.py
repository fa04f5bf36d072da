"""Which job goes next and where, as the core decides it: models, speeds, owners, what is let wait and taken back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from broker.core import backlog, placing
from broker.core.retry import ATTEMPTS_MOST
from broker.core.rivals import LOADS
from broker.core.rooms import KINDS
from broker.core.rules import Rules
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.records import JobState, Needs, Phase, ProgressKind, Reason, Timings, Why
from tests.core.broker.given import NEEDS, Given, Session, held, job_id, submit_of

XL, PONY = "checkpoints/xl.safetensors", "checkpoints/pony.safetensors"


def needing(*models: str, signature: str = "") -> Needs:
    return dataclasses.replace(NEEDS, models=models, signature=signature if signature else "+".join(models))


def worker(broker: Given, name: str, credits: int = 1, **facts: Any) -> Session:
    """One that has both models on its disk."""
    made = broker.worker(name, **facts)
    made.announces()
    made.offers(*NEEDS.nodes, models=(XL, PONY))
    made.has_room(credits)
    return made


def runs(session: Session, job: str, running_ms: int, *, loading_ms: int = 0, attempt: int = 1) -> None:
    """The job begins, takes so long, and succeeds; then there is room for another."""
    session.accepts(job, attempt)
    session.reports(job, 1, ProgressKind.STARTED, attempt)
    session.given.now_ms += running_ms
    timings = Timings(staging_ms=0, waiting_ms=0, running_ms=running_ms, loading_ms=loading_ms, finishing_ms=0)
    session.says(wire.Complete(job_id=job, attempt=attempt, outputs=(), timings=timings))
    session.has_room()


def taught(broker: Given, session: Session, number: int, model: str, *, run_ms: int = 4_000) -> None:
    """The worker has loaded the model in 11 s and then run one such job more."""
    for offset, loading_ms in enumerate((11_000, 0)):
        job = broker.submitted(number + offset, needs=needing(model), pin=session.name)
        broker.tick()
        runs(session, job, run_ms + loading_ms, loading_ms=loading_ms)


def busy_holder(broker: Given) -> tuple[Session, str]:
    """gpu-1, which holds XL and runs a job that needs it."""
    holder = worker(broker, "gpu-1")
    taught(broker, holder, 100, XL)
    first = broker.submitted(1, needs=needing(XL))
    broker.tick()
    holder.accepts(first)
    holder.reports(first, 1, ProgressKind.STARTED)
    return holder, first


def where(broker: Given, job: str) -> str:
    return broker.records[job].worker


# ---- models


def test_a_job_goes_to_who_holds_its_models_and_says_so(broker: Given) -> None:
    one, two = worker(broker, "gpu-1"), worker(broker, "gpu-2")
    taught(broker, one, 100, XL)
    taught(broker, two, 200, PONY)
    pony, xl = broker.submitted(1, needs=needing(PONY)), broker.submitted(2, needs=needing(XL))
    broker.tick()
    assert (where(broker, pony), where(broker, xl)) == ("gpu-2", "gpu-1")
    assert broker.records[pony].why is Why.HOLDS_MODELS
    decision = broker.story[pony][-1].decision
    assert decision is not None and decision.worker == "gpu-2"
    (other,) = [one for one in decision.candidates if one.worker == "gpu-1"]
    assert other.missing_models == (PONY,) and other.load_ms == 11_000


def test_a_job_waits_for_the_busy_holder_but_no_longer_than_loading_takes(broker: Given) -> None:
    holder, first = busy_holder(broker)
    idle = worker(broker, "gpu-2")
    second = broker.submitted(2, needs=needing(XL))
    broker.tick()
    assert broker.state(second) is JobState.QUEUED, "4 s of waiting are less than 11 s of loading"
    broker.passes(4_000, holder, idle)
    runs(holder, first, 0)
    broker.tick()
    assert where(broker, second) == "gpu-1" and broker.records[second].why is Why.WAITED_FOR_MODELS
    decision = broker.story[second][-1].decision
    assert decision is not None and 4_000 <= decision.waited_ms <= 5_000
    assert (decision.waited_for, decision.instead) == ("gpu-1", "gpu-2")
    assert [one.load_ms for one in decision.candidates if one.worker == "gpu-2"] == [11_000]


def test_a_holder_that_hangs_is_not_waited_for_longer_than_loading_takes(broker: Given) -> None:
    holder, _first = busy_holder(broker)
    idle = worker(broker, "gpu-2")
    second = broker.submitted(2, needs=needing(XL))
    broker.passes(13_000, holder, idle)
    assert where(broker, second) == "gpu-2"
    decision = broker.story[second][-1].decision
    assert decision is not None and 11_000 <= decision.waited_ms <= 13_000, "the story tells that it waited in vain"
    assert (decision.why, decision.waited_for, decision.instead) == (Why.SOONEST, "gpu-1", "gpu-2")


@pytest.mark.parametrize("slots", [1, 2])
def test_jobs_whose_models_are_loaded_go_first_but_only_for_as_long_as_some_loads_take(
    broker: Given, slots: int
) -> None:
    gpu = worker(broker, "gpu-1", slots)
    taught(broker, gpu, 100, XL)
    gpu.has_room(slots)
    other = broker.submitted(1, needs=needing(PONY))
    load_ms = broker.fleet.leases.estimates.load_ms(PONY, "")
    number, passed_ms = 1, 0
    while not where(broker, other):
        number += 1
        broker.submitted(number, needs=needing(XL))
        broker.tick()
        job = next(sent for sent, _ in gpu.dispatched if broker.state(sent) is not JobState.SUCCEEDED)
        if job != other:
            runs(gpu, job, broker.rules.turn_ms)  # a longer turn would be taken for a broker that stood still
            gpu.has_room(slots - len(broker.fleet.roster.by_name["gpu-1"].jobs))
            passed_ms += broker.rules.turn_ms
    assert LOADS * load_ms < passed_ms <= LOADS * load_ms + (1 + slots) * broker.rules.turn_ms


def test_however_many_kinds_of_workers_are_full_one_with_room_is_found(broker: Given) -> None:
    for number in range(2 * KINDS):
        gpu = broker.joined(f"gpu-{number}", labels=(f"rack-{number // 2}",))
        broker.running(gpu, number=number + 1)
    last = broker.joined("gpu-last", labels=("rack-last",))
    job = broker.submitted(1_000)
    broker.tick()
    assert last.dispatched == [(job, 1)]


def test_where_workers_are_of_many_kinds_the_next_turns_go_on_at_once(
    broker: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "LANES", 12)
    for number in range(8):
        broker.joined(f"gpu-{number}", labels=(f"rack-{number}",))
    jobs = [broker.submitted(number) for number in range(1, 9)]
    sent: list[list[str]] = []
    while not sent or broker.fleet.sleep_ms(broker.now_ms) == 0:
        broker.tick()
        sent.append([job for job in jobs if broker.state(job) is JobState.LEASED])
    assert sent == [jobs[:2], jobs[:5], jobs], "kinds with room: 8 and 7; 6, 5 and 4; 3, 2 and 1"


def test_a_more_urgent_job_is_not_passed_over_for_the_sake_of_models(broker: Given) -> None:
    gpu = worker(broker, "gpu-1")
    taught(broker, gpu, 100, XL)
    broker.submitted(1, needs=needing(XL))
    urgent = broker.submitted(2, needs=needing(PONY), priority=1)
    broker.tick()
    assert where(broker, urgent) == "gpu-1"


def test_what_a_comfyui_held_is_forgotten_when_it_runs_out_of_memory(broker: Given) -> None:
    gpu = worker(broker, "gpu-1")
    taught(broker, gpu, 100, XL)
    known = broker.fleet.roster.by_name["gpu-1"]
    assert known.resident == (XL,)
    job = broker.submitted(1, needs=needing(XL))
    broker.tick()
    gpu.accepts(job)
    gpu.fails(job, Reason.OUT_OF_MEMORY)
    assert not known.resident


# ---- speed


def test_the_last_job_of_a_burst_waits_for_the_fast_card(broker: Given) -> None:
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    for number, session in ((100, fast), (200, slow)):
        job = broker.submitted(number, needs=needing(XL), pin=session.name)
        broker.tick()
        runs(session, job, 15_000, loading_ms=11_000)
        taught(broker, session, number + 1, XL, run_ms=4_000 if session is fast else 40_000)
    first, second = (broker.submitted(number, needs=needing(XL)) for number in (1, 2))
    broker.tick()
    assert where(broker, first) == "fast" and broker.state(second) is JobState.QUEUED
    runs(fast, first, 4_000)
    broker.tick()
    decision = broker.story[second][-1].decision
    assert decision is not None and decision.why is Why.WAITED_FOR_FASTER and decision.waited_ms
    assert (decision.worker, decision.waited_for, decision.instead) == ("fast", "fast", "slow")
    second = broker.submitted(50, needs=needing(XL))
    broker.tick()
    more = [broker.submitted(number, needs=needing(XL)) for number in range(3, 16)]
    broker.tick()
    assert "slow" in {where(broker, job) for job in (second, *more)}, "the fast one cannot do all of them in 40 s"


PICTURE = dataclasses.replace(needing(XL), pixels=1 << 20, steps=16)
FILM = dataclasses.replace(PICTURE, pixels=64 << 20)


def ran_each(broker: Given, needs: Needs, *times: tuple[Session, int], number: int = 100) -> None:
    """Each worker has loaded the models in 11 s and run three such jobs in so many milliseconds."""
    for session, run_ms in times:
        for loading_ms in (11_000, 0, 0):
            job = broker.submitted(number, needs=needs, pin=session.name)
            number += 1
            broker.tick()
            runs(session, job, run_ms + loading_ms, loading_ms=loading_ms)


def test_a_film_waits_for_the_fast_card_though_pictures_wait_behind_it(broker: Given) -> None:
    picture, film = PICTURE, FILM
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    ran_each(broker, picture, (fast, 4_000), (slow, 40_000))
    broker.submitted(1, needs=picture, pin="fast")
    broker.tick()
    long = broker.submitted(2, needs=film)
    short = [broker.submitted(number, needs=picture) for number in range(3, 16)]
    broker.tick()
    assert broker.state(long) is JobState.QUEUED, "the slow one would take 64 times 40 s, the fast one 64 times 4 s"
    assert "slow" in {where(broker, job) for job in short}, "it has these meanwhile"


def test_what_waits_for_other_models_counts_by_its_work_and_not_by_its_number(broker: Given) -> None:
    other = dataclasses.replace(PICTURE, models=(PONY,), labels=("quick",), signature=PONY)
    fast, slow = worker(broker, "fast", labels=("quick",)), worker(broker, "slow")
    ran_each(broker, PICTURE, (fast, 4_000), (slow, 40_000))
    ran_each(broker, other, (fast, 4_000), number=200)
    broker.submitted(1, needs=other, pin="fast")
    broker.tick()
    film = broker.submitted(2, needs=FILM)
    for number in range(3, 43):
        broker.submitted(number, needs=other)
    broker.tick()
    assert broker.state(film) is JobState.QUEUED, (
        "the fast one has done the film and all of them before the slow one it"
    )


def test_a_film_of_which_only_its_time_is_known_waits_for_the_fast_card_as_well(broker: Given) -> None:
    unsized = dataclasses.replace(PICTURE, pixels=0, steps=0, signature="film")
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    ran_each(broker, PICTURE, (fast, 4_000), (slow, 40_000))
    ran_each(broker, unsized, (fast, 256_000), (slow, 2_560_000), number=200)
    broker.submitted(1, needs=PICTURE, pin="fast")
    broker.tick()
    film = broker.submitted(2, needs=unsized)
    short = [broker.submitted(number, needs=PICTURE) for number in range(3, 16)]
    broker.tick()
    assert broker.state(film) is JobState.QUEUED
    assert "slow" in {where(broker, job) for job in short}


def test_a_staged_job_is_taken_back_when_another_worker_would_have_it_done_sooner(broker: Given) -> None:
    busy = worker(broker, "gpu-1", credits=2)
    taught(broker, busy, 100, XL)
    busy.has_room(2)
    first, second = (broker.submitted(number, needs=needing(XL)) for number in (1, 2))
    broker.tick()
    busy.accepts(first)
    busy.accepts(second)
    busy.reports(first, 1, ProgressKind.STARTED)
    assert where(broker, second) == "gpu-1"
    had = broker.fleet.placing._fairness.share("ann")
    for _ in range(45):  # it takes much longer than it should
        broker.now_ms += 2_000
        busy.beats(held(first), held(second, phase=Phase.STAGED))
        broker.tick()
    worker(broker, "gpu-2")
    broker.now_ms += 1_000
    broker.tick()
    assert where(broker, second) == "gpu-2" and broker.records[second].why is Why.MOVED
    assert (broker.records[second].attempt, broker.records[second].burnt) == (2, 0), "it costs the job nothing"
    assert {line.burnt for line in broker.story[second]} == {0}, "and no line of its story tells of a failure"
    assert broker.fleet.placing._fairness.share("ann") == had > 0, "nor its owner"
    assert any(isinstance(said, wire.Abandon) and said.job_id == second for said in busy.got)
    assert where(broker, first) == "gpu-1", "what runs is left alone"


@pytest.mark.parametrize("waiting", [0, 20])
def test_a_staged_job_is_not_taken_back_for_a_full_worker_that_others_wait_for(waiting: int, broker: Given) -> None:
    """The same or another one would be sent there in its place, and taken back a moment later."""
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    ran_each(broker, PICTURE, (fast, 20_000), (slow, 60_000))
    slow.has_room(2)
    first, _ = broker.submitted(1, needs=PICTURE, pin="slow"), broker.submitted(2, needs=PICTURE)
    fast.has_room(0)
    broker.tick()
    slow.accepts(first)
    slow.reports(first, 1, ProgressKind.STARTED)
    broker.now_ms += 1_000
    broker.tick()
    fast.has_room(1)
    running = broker.submitted(3, needs=PICTURE, pin="fast", priority=9)
    broker.tick()
    fast.accepts(running)
    fast.reports(running, 1, ProgressKind.STARTED)
    for number in range(waiting):
        broker.submitted(10 + number, needs=PICTURE)
    for _ in range(5):
        broker.now_ms += 500
        broker.tick()
    moved = [said for said in slow.got if isinstance(said, wire.Abandon)]
    assert bool(moved) is (waiting == 0)


def test_a_job_is_not_taken_back_when_it_cannot_have_another_attempt(broker: Given) -> None:
    busy = worker(broker, "gpu-1", credits=2)
    last = broker.submitted(2, needs=needing(XL))
    job = broker.fleet.jobs.live[last]
    job.record = broker.records[last] = dataclasses.replace(job.record, attempt=ATTEMPTS_MOST - 1)
    first = broker.submitted(1, needs=needing(XL), priority=1)
    broker.tick()
    busy.accepts(first)
    broker.tick()
    busy.accepts(last, ATTEMPTS_MOST)
    busy.reports(first, 1, ProgressKind.STARTED)
    for _ in range(45):  # it takes much longer than it should
        broker.now_ms += 2_000
        busy.beats(held(first), held(last, ATTEMPTS_MOST, phase=Phase.STAGED))
        broker.tick()
    worker(broker, "gpu-2")
    broker.now_ms += 1_000
    broker.tick()
    assert (where(broker, last), broker.records[last].attempt) == ("gpu-1", ATTEMPTS_MOST)


# ---- liars


def test_a_worker_that_offers_something_else_at_every_beat_leaves_nothing_behind_and_stops_nobody(
    broker: Given,
) -> None:
    jobs = [broker.submitted(number) for number in range(1, 11)]
    liar = broker.worker("liar", vram_bytes=2**53)
    for number in range(50):
        liar.capabilities = f"{number:064x}"
        liar.announces()
        liar.offers()
        liar.has_room(2**31)
        liar.beats()
        broker.now_ms += 100
        broker.tick()
    assert not liar.dispatched, "it offers no node at all"
    assert len(broker.fleet.jobs.backlog._lines) <= 3 and len(broker.fleet.roster._kinds) == 1
    honest = broker.joined("gpu-1")
    broker.tick()
    assert where(broker, jobs[0]) == "gpu-1" and honest.dispatched


# ---- owners


def test_two_owners_take_turns_whoever_came_first(broker: Given) -> None:
    gpu = worker(broker, "gpu-1", credits=0)
    for number in range(1, 11):
        broker.submitted(number, owner="ann" if number <= 8 else "bob")
    order = []
    for _ in range(4):
        gpu.has_room()
        broker.tick()
        order.append(gpu.dispatched[-1][0])
        runs(gpu, order[-1], 4_000)
    assert {job_id(9), job_id(10)} <= set(order)


def test_a_weight_of_three_is_three_jobs_of_four() -> None:
    broker = Given(Rules(weights={"ann": 3.0}))
    gpu = worker(broker, "gpu-1", credits=0)
    for number in range(1, 41):
        broker.submitted(number, owner="ann" if number % 2 else "bob")
    served = []
    for _ in range(20):
        gpu.has_room()
        broker.tick()
        served.append(broker.records[gpu.dispatched[-1][0]].owner)
        runs(gpu, gpu.dispatched[-1][0], 4_000)
    assert 14 <= served.count("ann") <= 16


def test_an_owner_at_the_cap_waits_while_others_go_on() -> None:
    broker = Given(Rules(max_running_per_owner=2))
    gpu = broker.joined("gpu-1", credits=8)
    for number in range(1, 9):
        broker.submitted(number, owner="ann" if number <= 6 else "bob")
    broker.tick()
    assert broker.fleet.jobs.held_of == {"ann": 2, "bob": 2}
    gpu.accepts(gpu.dispatched[0][0])
    gpu.completes(gpu.dispatched[0][0])
    gpu.has_room(4)
    broker.tick()
    assert broker.fleet.jobs.held_of == {"ann": 2, "bob": 2} and len(gpu.dispatched) == 5


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize(
    "streams",
    [
        [("ann", XL, 0)],
        [("ann", XL, 3), ("bob", PONY, 2)],
        [("ann", PONY, 3), ("bob", XL, 0), ("eve", XL, 0)],
        [("zoe", PONY, 3), ("zoe", XL, 3)],
        [("", XL, 1), ("", XL, 0)],
    ],
)
def test_nobody_waits_for_ever(
    streams: list[tuple[str, str, int]], slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One patient job, and more than the fleet can do comes in behind it, whoever's, whatever it needs, however urgent.
    An owner "" is a new one each time."""
    monkeypatch.setattr(backlog, "PLACES", 10)
    monkeypatch.setattr(placing, "BY_AGE", 4)
    broker = Given()
    gpu = worker(broker, "gpu-1", slots)
    patient = broker.submitted(1, needs=needing(PONY), owner="zoe", priority=-1)
    number = 1
    for _ in range(200):
        for owner, model, priority in streams:
            number += 1
            whose = owner if owner else f"new-{number}"
            broker.submitted(number, needs=needing(model), owner=whose, priority=priority)
        broker.tick()
        if where(broker, patient):
            return
        job, attempt = next(sent for sent in gpu.dispatched if broker.state(sent[0]) is not JobState.SUCCEEDED)
        runs(gpu, job, 4_000, attempt=attempt)
        gpu.has_room(slots - len(broker.fleet.roster.by_name["gpu-1"].jobs))
    raise AssertionError(f"it has seen {len(gpu.dispatched)} others go first")


# ---- what a submit may ask for


def test_a_job_that_no_worker_can_run_is_refused_with_what_is_missing(broker: Given) -> None:
    worker(broker, "gpu-1")
    lacking = dataclasses.replace(NEEDS, models=("checkpoints/none.safetensors",), nodes=("KSampler", "Rare"))
    reply = broker.asks(submit_of(1, needs=lacking, wait_for_worker=False))
    assert isinstance(reply, client.Error) and reply.code == "no_worker"
    assert "the node Rare" in reply.text and "the model checkpoints/none.safetensors" in reply.text
    assert not broker.records
    assert broker.submitted(1, needs=lacking), "it may wait for a worker that can"


def test_a_job_whose_needs_only_two_workers_together_meet_is_refused(broker: Given) -> None:
    for name, digest, model in (("gpu-1", "1" * 64, XL), ("gpu-2", "2" * 64, PONY)):
        made = broker.worker(name, capabilities=digest)
        made.announces()
        made.offers(*NEEDS.nodes, models=(model,))
    reply = broker.asks(submit_of(1, needs=needing(PONY, XL), wait_for_worker=False))
    assert isinstance(reply, client.Error) and "lacks the model" in reply.text
    assert broker.asks(submit_of(2, needs=needing(PONY), wait_for_worker=False)).job


def test_a_pin_to_nobody_is_refused_and_while_nobody_tells_what_it_can_a_job_waits(broker: Given) -> None:
    assert broker.asks(submit_of(1, wait_for_worker=False)).job, "no worker is here yet"
    worker(broker, "gpu-1")
    reply = broker.asks(submit_of(2, pin="gpu-9", wait_for_worker=False))
    assert isinstance(reply, client.Error) and "gpu-9" in reply.text
    broker.worker("gpu-2", capabilities="2" * 64).announces()
    rare = dataclasses.replace(NEEDS, nodes=("Rare",))
    assert broker.asks(submit_of(3, needs=rare, wait_for_worker=False)).job, "gpu-2 has not told what it offers"


def test_a_pinned_job_runs_there_alone_and_says_so(broker: Given) -> None:
    worker(broker, "gpu-1")
    job = broker.submitted(1, pin="gpu-2")
    broker.tick()
    assert broker.state(job) is JobState.QUEUED
    worker(broker, "gpu-2")
    broker.tick()
    assert where(broker, job) == "gpu-2" and broker.records[job].why is Why.PINNED
