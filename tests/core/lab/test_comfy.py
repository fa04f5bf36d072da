"""The cost model, by hand."""

from __future__ import annotations

import pytest

from comfyui.simulator.cards import Memory, Pace
from scripts.laboratory.agenda import Agenda
from scripts.laboratory.comfy import Comfy, picture
from scripts.laboratory.traffic import Foreign, units
from tests.core.lab.fleets import PLAIN, A, B, job


def ends(comfy: Comfy, agenda: Agenda) -> list[int]:
    """When each prompt ended."""
    found: list[int] = []
    comfy.ended = lambda _comfy, _prompt: found.append(agenda.now_ms)
    while agenda.step():
        pass
    return found


def test_prompts_run_one_after_the_other_and_the_first_loads_the_model() -> None:
    agenda = Agenda()
    comfy = Comfy(0, PLAIN, agenda, ())
    for number in range(3):
        comfy.post(picture(job(number)))
    assert comfy.queued == 3
    assert ends(comfy, agenda) == [16_000, 26_000, 36_000]
    assert (comfy.loads, comfy.busy_ms) == (1, 36_000)


def test_a_model_that_does_not_fit_pushes_out_the_one_used_longest_ago() -> None:
    agenda = Agenda()
    comfy = Comfy(0, PLAIN, agenda, ())
    for number, model in enumerate((A, B, A)):
        comfy.post(picture(job(number, model=model)))
    assert ends(comfy, agenda) == [16_000, 32_000, 48_000]
    assert comfy.loads == 3


def test_another_program_takes_its_share_while_it_runs() -> None:
    agenda = Agenda()
    comfy = Comfy(0, PLAIN, agenda, (Foreign(0, 8_000, 16_000, 0.25),))
    comfy.post(picture(job(0)))
    # 8 s alone, 2 s of work in the 8 s that are shared, the 6 s left alone again.
    assert ends(comfy, agenda) == [22_000]


def test_death_takes_what_was_held_and_loaded() -> None:
    agenda = Agenda()
    comfy = Comfy(0, PLAIN, agenda, ())
    for number in range(2):
        comfy.post(picture(job(number)))
    agenda.at(5_000, lambda: None)
    agenda.step()
    held = comfy.die()
    assert [prompt.job.number for prompt in held if prompt.job] == [0, 1]
    assert (comfy.wasted_ms, comfy.queued, list(comfy.resident)) == (5_000, 0, [])
    assert ends(comfy, agenda) == []


def test_a_prompt_that_is_taken_back_makes_room_for_the_next() -> None:
    agenda = Agenda()
    comfy = Comfy(0, PLAIN, agenda, ())
    first, second, third = (picture(job(number)) for number in range(3))
    for prompt in (first, second, third):
        comfy.post(prompt)
    comfy.drop(second)
    comfy.drop(first)
    assert ends(comfy, agenda) == [10_000]  # the model is loaded by then


def test_the_figures_are_those_of_the_stand_in() -> None:
    pace = Pace(PLAIN)
    assert pace.load_s(A.size_bytes) == 6.0
    picture_s = 2 * pace.words_s() + 20 * pace.step_s(1024, 1024, 1) + pace.decode_s(1024, 1024, 1)
    assert units(1024 * 1024, 20) * PLAIN.step_s == pytest.approx(picture_s)
    memory = Memory(PLAIN)
    assert [memory.load(model.name, model.size_bytes) for model in (A, B, A)] == [True, True, True]
