"""People use a card's ComfyUI from their own browsers, too: what the fleet does about their prompts in its queue."""

from __future__ import annotations

import dataclasses

from scripts.laboratory.arena import Arena, Ran
from scripts.laboratory.product import Product
from scripts.laboratory.traffic import Job, Posted
from scripts.laboratory.trials import OTHERS
from tests.core.lab.fleets import PLAIN, SLOW, job, scenario

#: Both kinds of cards have run such pictures by then, and are idle again: 10 s each here, 40 s on the slow one.
AT_MS = 400_000
WARM = [job(number, submit_ms=100 * number) for number in range(16)]


def after(jobs: list[Job], *posted: Posted, slow: int) -> list[Ran]:
    """What became of these jobs, which come once the cards are warm; card 0 is the fast one."""
    cards = (PLAIN, *(SLOW for _ in range(slow)))
    return Arena(scenario([*WARM, *jobs], cards, posted=posted), Product(1, "finish_time")).run().ran[len(WARM) :]


def test_prompts_of_others_run_in_their_turn_and_no_policy_hears_of_them() -> None:
    posted = (Posted(0, 1_000, 2, 3.0), Posted(0, 17_000, 1, 3.0))
    jobs = [job(0), job(1, submit_ms=2_000), job(2, submit_ms=40_000)]
    found = Arena(scenario(jobs, posted=posted), OTHERS["RANDOM"](1)).run()
    assert [ran.began_ms for ran in found.ran] == [0, 22_000, 40_000]


def test_many_quick_prompts_of_others_do_not_send_a_film_to_the_slow_card() -> None:
    film = job(len(WARM), work=1_200.0, submit_ms=AT_MS)
    film = dataclasses.replace(film, pixels=120 * film.pixels)
    (ran,) = after([film], Posted(0, AT_MS - 10_000, 19, 3.0), slow=1)
    assert (ran.card, ran.ended_ms - AT_MS) == (0, 1_200_000 + 47_000)


def test_pictures_do_not_wait_behind_a_film_of_others_while_slower_cards_are_idle() -> None:
    pictures = [job(len(WARM) + n, submit_ms=AT_MS + 60_000 * n) for n in range(4)]
    for before_ms in (100_000, 500):  # of the one that has just begun nobody knows how long it takes
        found = after(pictures, Posted(0, AT_MS - before_ms, 1, 1_200.0), slow=2)
        assert {ran.card for ran in found} <= {1, 2}
        assert max(ran.began_ms - ran.job.submit_ms for ran in found) < (1_000 if before_ms > 500 else 200_000)


def test_a_picture_waits_for_a_quick_prompt_of_others_on_the_fast_card() -> None:
    (ran,) = after([job(len(WARM), submit_ms=AT_MS)], Posted(0, AT_MS - 5_000, 1, 10.0), slow=2)
    assert (ran.card, ran.began_ms - AT_MS) == (0, 5_000)
