"""Policies of others that push a job to a card the moment it is submitted, and what all of the others share.

A job whose card dies is lost to them; the laboratory lets its client notice and submit it again, which is a favour.
"""

from __future__ import annotations

import functools
import random

from scripts.laboratory.arena import Arena
from scripts.laboratory.comfy import Comfy, Prompt, picture
from scripts.laboratory.traffic import Job

#: How soon a client sees that its picture will not come.
NOTICE_MS = 10_000


class Baseline:
    """Hears everything and does nothing; each policy overrides what it goes by."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.resubmitted = 0

    def begin(self, arena: Arena) -> None:
        self.arena, self.agenda, self.cards = arena, arena.agenda, arena.cards

    def submitted(self, job: Job) -> None:
        raise NotImplementedError

    def began(self, comfy: Comfy, prompt: Prompt) -> None:
        pass

    def ended(self, comfy: Comfy, prompt: Prompt) -> None:
        pass

    def died(self, comfy: Comfy, held: list[Prompt]) -> None:
        for prompt in held:
            if prompt.job is not None:
                self.resubmitted += 1
                self.agenda.after(NOTICE_MS, functools.partial(self.submitted, prompt.job))

    def back(self, comfy: Comfy) -> None:
        pass

    def able(self, job: Job) -> list[Comfy]:
        """Cards that are up and large enough."""
        return [comfy for comfy in self.cards if comfy.alive and fits(job, comfy)]


def fits(job: Job, comfy: Comfy) -> bool:
    return job.vram_bytes <= comfy.card.vram_bytes


class AtOnce(Baseline):
    """Posts each job at once to some card that is able; while there is none, its client tries again."""

    def submitted(self, job: Job) -> None:
        able = self.able(job)
        if able:
            self.choose(job, able).post(picture(job))
        else:
            self.agenda.after(NOTICE_MS, functools.partial(self.submitted, job))

    def choose(self, job: Job, able: list[Comfy]) -> Comfy:
        raise NotImplementedError


class Random(AtOnce):
    """Any card: ImageSmith's RANDOM."""

    def choose(self, job: Job, able: list[Comfy]) -> Comfy:
        return self.rng.choice(able)


class RoundRobin(AtOnce):
    """The next card in turn: ImageSmith's ROUND_ROBIN."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._turn = 0

    def choose(self, job: Job, able: list[Comfy]) -> Comfy:
        self._turn += 1
        return able[self._turn % len(able)]


class LeastQueue(AtOnce):
    """ComfyUI-Distributed, load_balance=true (api/orchestration/dispatch.py, select_least_busy_worker).

    Asks every card for queue_remaining, then posts: in turn to one of those that answered 0, else to the shortest
    queue, the first on a tie. Nothing is held between question and post, so submits that overlap see the same queues.
    """

    #: The answers are in after so long, and the prompt is in the chosen queue after so long again.
    PROBE_MS = 30
    POST_MS = 30

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._turn = 0

    def submitted(self, job: Job) -> None:
        self.agenda.after(self.PROBE_MS, functools.partial(self._probed, job))

    def _probed(self, job: Job) -> None:
        able = self.able(job)
        if not able:
            self.agenda.after(NOTICE_MS, functools.partial(self.submitted, job))
            return
        idle = [comfy for comfy in able if comfy.queued == 0]
        if idle:
            chosen = idle[self._turn % len(idle)]
            self._turn += 1
        else:
            chosen = min(able, key=lambda comfy: comfy.queued)
        self.agenda.after(self.POST_MS, functools.partial(self._post, chosen, job))

    def _post(self, chosen: Comfy, job: Job) -> None:
        if chosen.alive:
            chosen.post(picture(job))
        else:
            self.submitted(job)
