"""The one table of reasons, and the one decision after an attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.retry import ATTEMPTS_MOST, VERDICTS, GiveUp, Requeue, Verdict, decide, forgiven
from broker.core.rules import Rules
from broker.protocol.records import Reason

RULES = Rules(max_attempts=3, max_deaths=3, backoff_base_ms=500, backoff_cap_ms=30_000)

#: Written out a second time, on purpose: changing what is tried again takes two hands.
FINAL = {
    Reason.INVALID_WORKFLOW, Reason.NODE_ERROR, Reason.INPUT_MISSING, Reason.TIMEOUT, Reason.POISON_JOB,
    Reason.EXPIRED, Reason.CANCELLED,
}  # fmt: skip
AGAIN = {
    Reason.OUT_OF_MEMORY, Reason.OUTPUT_LOST, Reason.COMFY_UNREACHABLE, Reason.COMFY_LOST, Reason.INTERRUPTED,
    Reason.POISONED, Reason.STALLED, Reason.WORKER_LOST, Reason.NOT_ACCEPTED, Reason.DRAINING,
}  # fmt: skip


def after(
    reason: Reason, *, attempt: int = 1, burnt: int = 0, deaths: int = 0, jitter: float = 0.5, rules: Rules = RULES
) -> Requeue | GiveUp:
    return decide(reason, attempt=attempt, burnt=burnt, deaths=deaths, jitter=jitter, rules=rules)


def test_every_reason_has_a_verdict() -> None:
    assert VERDICTS.keys() == set(Reason) == FINAL | AGAIN
    assert not FINAL & AGAIN


@pytest.mark.parametrize("reason", sorted(FINAL))
def test_what_another_try_cannot_mend_is_final_at_once(reason: Reason) -> None:
    assert after(reason) == GiveUp(reason)


@pytest.mark.parametrize("reason", sorted(AGAIN))
def test_infrastructure_is_tried_again(reason: Reason) -> None:
    assert isinstance(after(reason), Requeue)


@pytest.mark.parametrize("reason", sorted(AGAIN - {Reason.DRAINING, Reason.WORKER_LOST, Reason.COMFY_LOST}))
def test_the_last_attempt_gives_up_with_its_own_reason(reason: Reason) -> None:
    assert isinstance(after(reason, burnt=1), Requeue)
    assert after(reason, burnt=2) == GiveUp(reason)


@pytest.mark.parametrize("reason", [Reason.WORKER_LOST, Reason.COMFY_LOST])
def test_a_job_that_took_three_workers_down_is_kept_for_a_person(reason: Reason) -> None:
    assert VERDICTS[reason].death
    assert after(reason, burnt=2, deaths=2) == GiveUp(Reason.POISON_JOB)


def test_deaths_count_apart_from_attempts() -> None:
    patient = Rules(max_attempts=10, max_deaths=2)
    assert after(Reason.STALLED, burnt=5, deaths=1, rules=patient) == Requeue(6, 1, after_backoff(6))
    assert after(Reason.COMFY_LOST, burnt=5, deaths=1, rules=patient) == GiveUp(Reason.POISON_JOB)


def test_what_the_fleet_takes_away_burns_nothing_and_waits_for_nothing() -> None:
    assert after(Reason.DRAINING, burnt=2, deaths=2) == Requeue(2, 2, 0)
    assert VERDICTS[Reason.DRAINING] == Verdict(again=True, burns=False, death=False)


def test_a_job_handed_back_for_ever_ends_before_its_attempts_outgrow_the_contract() -> None:
    assert isinstance(after(Reason.DRAINING, attempt=ATTEMPTS_MOST - 1), Requeue)
    assert after(Reason.DRAINING, attempt=ATTEMPTS_MOST) == GiveUp(Reason.DRAINING)


def after_backoff(burnt: int, jitter: float = 0.5) -> int:
    return int(jitter * min(30_000, 500 * 2 ** (burnt - 1)))


@given(st.integers(0, 40), st.floats(0, 1, exclude_max=True), st.sampled_from(sorted(AGAIN - {Reason.DRAINING})))
def test_the_backoff_is_full_jitter_up_to_a_doubling_ceiling(burnt: int, jitter: float, reason: Reason) -> None:
    verdict = after(reason, burnt=burnt, jitter=jitter, rules=Rules(max_attempts=100, max_deaths=100))
    assert isinstance(verdict, Requeue)
    assert verdict.backoff_ms == after_backoff(burnt + 1, jitter) < 30_000
    assert verdict.burnt == burnt + 1


@given(reason=st.sampled_from(sorted(AGAIN)), burnt=st.integers(0, 1), deaths=st.integers(0, 1))
def test_forgiving_takes_back_exactly_what_an_end_cost(reason: Reason, burnt: int, deaths: int) -> None:
    verdict = after(reason, burnt=burnt, deaths=deaths)
    assert isinstance(verdict, Requeue)
    assert forgiven(reason, burnt=verdict.burnt, deaths=verdict.deaths) == (burnt, deaths)
