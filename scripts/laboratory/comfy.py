"""The cost model every policy is measured with: one card and the ComfyUI on it.

Prompts run strictly one after the other. A model that is not resident is loaded first, and pushes out the ones used
longest ago when the card's memory is full. The figures of a card are the stand-in's own (comfyui/simulator/cards.py),
so that the same fleet can be run for real; `scripts/lab --calibrate` does, and compares.
"""

from __future__ import annotations

import functools
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from comfyui.simulator.cards import Card
from scripts.laboratory.agenda import Agenda
from scripts.laboratory.traffic import Foreign, Job, Model


class Prompt:
    """What is posted to a ComfyUI: a job's picture, or (job None) a tiny one for the sake of its models, or (foreign)
    somebody's of whom no policy hears."""

    __slots__ = ("attempt", "began_ms", "foreign", "job", "load_ms", "models", "posted_ms", "work")

    def __init__(
        self, job: Job | None, models: tuple[Model, ...], work: float, attempt: int = 0, *, foreign: bool = False
    ) -> None:
        self.job, self.models, self.work, self.attempt, self.foreign = job, models, work, attempt, foreign
        self.posted_ms = self.began_ms = 0
        #: What loading alone took, on a card that is not shared.
        self.load_ms = 0.0


def picture(job: Job, attempt: int = 0) -> Prompt:
    return Prompt(job, job.models, job.work, attempt)


class Comfy:
    def __init__(self, number: int, card: Card, agenda: Agenda, foreign: Sequence[Foreign]) -> None:
        self.number, self.card = number, card
        self.alive = True
        self.waiting: deque[Prompt] = deque()
        self.running: Prompt | None = None
        #: The models in the card's memory, the one used last at the end.
        self.resident: OrderedDict[Model, None] = OrderedDict()
        self.loads = 0
        #: Milliseconds in which prompts that came to their end were loaded and run.
        self.busy_ms = 0
        self.wasted_ms = 0
        self.began: Callable[[Comfy, Prompt], None] = _ignore
        self.ended: Callable[[Comfy, Prompt], None] = _ignore
        self._agenda = agenda
        self._foreign = foreign

    @property
    def queued(self) -> int:
        """What GET /prompt calls queue_remaining: prompts that wait, and the one that runs."""
        return len(self.waiting) + (self.running is not None)

    @property
    def used_bytes(self) -> int:
        return sum(model.size_bytes for model in self.resident)

    def post(self, prompt: Prompt) -> None:
        prompt.posted_ms = self._agenda.now_ms
        self.waiting.append(prompt)
        self._next()

    def drop(self, prompt: Prompt) -> None:
        """Take a prompt back, running or not."""
        if self.running is prompt:
            self.wasted_ms += self._agenda.now_ms - prompt.began_ms
            self.running = None
            self._next()
        elif prompt in self.waiting:
            self.waiting.remove(prompt)

    def die(self) -> list[Prompt]:
        """Everything it held, which is gone."""
        held = [*([self.running] if self.running is not None else []), *self.waiting]
        if self.running is not None:
            self.wasted_ms += self._agenda.now_ms - self.running.began_ms
        self.alive, self.running = False, None
        self.waiting.clear()
        self.resident.clear()
        return held

    def foreign_now(self) -> bool:
        return any(other.from_ms <= self._agenda.now_ms < other.until_ms for other in self._foreign)

    def _next(self) -> None:
        if self.running is not None or not self.waiting or not self.alive:
            return
        prompt = self.running = self.waiting.popleft()
        prompt.began_ms = self._agenda.now_ms
        prompt.load_ms = self._load(prompt.models)
        need_ms = prompt.load_ms + 1_000 * prompt.work * self.card.step_s
        self._agenda.at(self._done_ms(need_ms), functools.partial(self._end, prompt))
        self.began(self, prompt)

    def _end(self, prompt: Prompt) -> None:
        if self.running is not prompt:
            return  # it was taken back, or died
        self.busy_ms += self._agenda.now_ms - prompt.began_ms
        self.running = None
        self._next()
        self.ended(self, prompt)

    def _load(self, models: tuple[Model, ...]) -> float:
        """Bring models into memory; answers the milliseconds that takes."""
        absent = [model for model in models if model not in self.resident]
        self.loads += len(absent)
        for model in models:
            self.resident[model] = None
            self.resident.move_to_end(model)
        while len(self.resident) > len(models) and self.used_bytes > self.card.vram_bytes:
            self.resident.popitem(last=False)
        return sum(1_000 * model.size_bytes / self.card.load_bytes_per_s for model in absent)

    def _done_ms(self, need_ms: float) -> int:
        """When so much time of the card alone is over, if it begins now."""
        at_ms = float(self._agenda.now_ms)
        for other in self._foreign:
            if other.until_ms <= at_ms:
                continue
            if at_ms + need_ms <= other.from_ms:
                break
            if other.from_ms > at_ms:
                need_ms -= other.from_ms - at_ms
                at_ms = other.from_ms
            shared_ms = min(need_ms / other.share, other.until_ms - at_ms)
            need_ms -= shared_ms * other.share
            at_ms += shared_ms
        return max(self._agenda.now_ms + 1, round(at_ms + need_ms))


def _ignore(comfy: Comfy, prompt: Prompt) -> None:
    pass
