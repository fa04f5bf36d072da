"""Policies of others in which a job waits in the middle until a card asks for one, or is asked."""

from __future__ import annotations

import functools
from collections import OrderedDict

from scripts.laboratory.arena import Arena
from scripts.laboratory.baselines import Baseline, fits
from scripts.laboratory.comfy import Comfy, Prompt, picture
from scripts.laboratory.traffic import Job, Model


class Horde(Baseline):
    """AI-Horde: workers pull (horde/database/functions.py, get_sorted_wp_filtered_to_worker).

    A worker pops the request with the highest extra_priority, then the oldest, of those its card can run. Each queued
    request gains 50 points each 10 s, so between users of equal kudos that is first come, first served. The worker
    keeps one job ahead (queue_size 1) and asks again a second after a pop that gave nothing. Its own loading ahead in
    spare processes has no place here: a ComfyUI runs one prompt after the other. A job whose worker fell silent is
    given to another one after its ttl, at least 150 s (horde/classes/stable/processing_generation.py).
    """

    AHEAD = 1
    POP_MS = 1_000
    TTL_MS = 150_000

    def begin(self, arena: Arena) -> None:
        super().begin(arena)
        self.waiting: OrderedDict[tuple[int, int], Job] = OrderedDict()
        self._asking: set[int] = set()
        for comfy in self.cards:
            self._pop(comfy)

    def submitted(self, job: Job) -> None:
        self.waiting[job.submit_ms, job.number] = job

    def ended(self, comfy: Comfy, prompt: Prompt) -> None:
        self._pop(comfy)

    def died(self, comfy: Comfy, held: list[Prompt]) -> None:
        for prompt in held:
            if prompt.job is not None:
                self.agenda.after(self.TTL_MS, functools.partial(self._again, prompt.job))

    def back(self, comfy: Comfy) -> None:
        self._pop(comfy)

    def _again(self, job: Job) -> None:
        self.waiting[job.submit_ms, job.number] = job
        self.waiting.move_to_end((job.submit_ms, job.number), last=False)

    def _pop(self, comfy: Comfy) -> None:
        while comfy.alive and comfy.queued < 1 + self.AHEAD:
            key = next((key for key, job in self.waiting.items() if fits(job, comfy)), None)
            if key is None:
                self._ask_later(comfy)
                return
            comfy.post(picture(self.waiting.pop(key)))

    def _ask_later(self, comfy: Comfy) -> None:
        if comfy.number not in self._asking:
            self._asking.add(comfy.number)
            self.agenda.after(self.POP_MS, functools.partial(self._ask, comfy))

    def _ask(self, comfy: Comfy) -> None:
        self._asking.discard(comfy.number)
        self._pop(comfy)


class ClusterGateway(Baseline):
    """comfyui-cluster-gateway (src/gateway.ts: tick, workerDispatchScore, dispatchWorker).

    One job a card. Idle cards are asked in the order of their seconds a picture, less 1000 for one whose model is
    wanted: the seconds are an average with alpha 0.25 after ten samples, before that what the operator wrote, which is
    taken to be true for a common picture. Each takes the oldest job for the model it has resident, else the oldest.
    """

    ALPHA = 0.25
    SAMPLES = 10
    COMMON = 22.0

    def begin(self, arena: Arena) -> None:
        super().begin(arena)
        #: By memory needed and model, in the order of submits.
        self.waiting: dict[tuple[int, Model], OrderedDict[int, Job]] = {}
        self.idle = set(range(len(self.cards)))
        self.model: list[Model | None] = [None] * len(self.cards)
        self.seconds = [self.COMMON * comfy.card.step_s for comfy in self.cards]
        self.samples: list[list[float]] = [[] for _ in self.cards]
        self._asked = False

    def submitted(self, job: Job) -> None:
        self.waiting.setdefault((job.vram_bytes, job.models[0]), OrderedDict())[job.number] = job
        self._ask()

    def ended(self, comfy: Comfy, prompt: Prompt) -> None:
        seconds = (self.agenda.now_ms - prompt.posted_ms) / 1_000
        seen = self.samples[comfy.number]
        seen.append(seconds if not seen else seen[-1] + self.ALPHA * (seconds - seen[-1]))
        if len(seen) >= self.SAMPLES:
            self.seconds[comfy.number] = seen[-1]
        self.idle.add(comfy.number)
        self._ask()

    def died(self, comfy: Comfy, held: list[Prompt]) -> None:
        self.idle.discard(comfy.number)
        self.model[comfy.number] = None
        super().died(comfy, held)

    def back(self, comfy: Comfy) -> None:
        self.idle.add(comfy.number)
        self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self.agenda.after(0, self._tick)

    def _tick(self) -> None:
        self._asked = False
        if not self.waiting:
            return
        wanted = {model for _, model in self.waiting}
        for number in sorted(self.idle, key=lambda n: (self.seconds[n] - 1_000 * (self.model[n] in wanted), n)):
            if not self.waiting:
                return
            self._dispatch(self.cards[number])

    def _dispatch(self, comfy: Comfy) -> None:
        fitting = [key for key in self.waiting if key[0] <= comfy.card.vram_bytes]
        if not fitting:
            return
        resident = [key for key in fitting if key[1] == self.model[comfy.number]]
        key = min(resident or fitting, key=lambda k: next(iter(self.waiting[k])))
        _, job = self.waiting[key].popitem(last=False)
        if not self.waiting[key]:
            del self.waiting[key]
        self.model[comfy.number] = job.models[0]
        self.idle.discard(comfy.number)
        comfy.post(picture(job))


class FairTurns(Baseline):
    """Nobody's: the plain fair queue, so that a fair share is compared with one.

    Owners who wait are served in turn, each its oldest job that the card can run; one job a card.
    """

    def begin(self, arena: Arena) -> None:
        super().begin(arena)
        #: The owner whose turn is next first.
        self.waiting: OrderedDict[str, OrderedDict[int, Job]] = OrderedDict()

    def submitted(self, job: Job) -> None:
        self.waiting.setdefault(job.owner, OrderedDict())[job.number] = job
        for comfy in self.cards:
            self.back(comfy)

    def ended(self, comfy: Comfy, prompt: Prompt) -> None:
        self.back(comfy)

    def back(self, comfy: Comfy) -> None:
        if not comfy.alive or comfy.queued:
            return
        for owner, jobs in self.waiting.items():
            job = next((job for job in jobs.values() if fits(job, comfy)), None)
            if job is not None:
                self.waiting.move_to_end(owner)
                del jobs[job.number]
                if not jobs:
                    del self.waiting[owner]
                comfy.post(picture(job))
                return
