"""The table of steps, and how long each part of an attempt took."""

from __future__ import annotations

from broker.protocol.records import Phase
from worker.core.steps import IN_COMFYUI, MOVES, PHASES, Stages, Step


def test_every_step_has_moves_and_a_phase() -> None:
    assert MOVES.keys() == PHASES.keys() == set(Step)
    assert set().union(*MOVES.values()) == set(Step) - {Step.INPUTS, Step.SOUGHT}
    assert {PHASES[step] for step in IN_COMFYUI} == {Phase.STAGING, Phase.STAGED, Phase.RUNNING}


def test_timings_of_an_attempt_that_ended_early_add_up() -> None:
    stages = Stages(100)
    early = stages.timings(150, 0)
    assert (early.staging_ms, early.waiting_ms, early.running_ms, early.finishing_ms) == (50, 0, 0, 0)
    stages.submitted(160)
    stages.submitted(170)
    stages.measured(30)
    stages.out(200)
    stages.out(999)
    unseen = stages.timings(210, 40)
    assert (unseen.staging_ms, unseen.waiting_ms, unseen.running_ms, unseen.finishing_ms) == (60, 10, 30, 10)
    assert unseen.loading_ms == unseen.running_ms, "loading is part of running"
