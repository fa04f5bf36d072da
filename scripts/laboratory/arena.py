"""One scenario under one policy, from the first submit to the last picture."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

from scripts.laboratory.agenda import Agenda
from scripts.laboratory.comfy import Comfy, Prompt
from scripts.laboratory.traffic import Death, Job, Posted, Scenario

#: A policy that leaves jobs lying for so long after the last submit does not finish them at all.
PATIENCE_MS = 48 * 3_600_000


class Unfinished(Exception):
    """A policy stopped before all jobs were done: its fault or the laboratory's."""


@dataclasses.dataclass(slots=True)
class Ran:
    """A job's last attempt."""

    job: Job
    card: int
    began_ms: int
    ended_ms: int = 0


@dataclasses.dataclass(slots=True)
class Run:
    """What happened."""

    scenario: Scenario
    ran: list[Ran]
    loads: int
    busy_ms: int
    wasted_ms: int
    #: Jobs that had to be submitted again because a card died with them.
    resubmitted: int


class Policy(Protocol):
    """Decides where jobs go; hears what a real one could hear."""

    resubmitted: int

    def begin(self, arena: Arena) -> None: ...

    def submitted(self, job: Job) -> None: ...

    def began(self, comfy: Comfy, prompt: Prompt) -> None: ...

    def ended(self, comfy: Comfy, prompt: Prompt) -> None: ...

    def died(self, comfy: Comfy, held: list[Prompt]) -> None: ...

    def back(self, comfy: Comfy) -> None: ...


class Arena:
    def __init__(self, scenario: Scenario, policy: Policy) -> None:
        self.scenario, self.policy = scenario, policy
        self.agenda = Agenda()
        self.cards = [
            Comfy(n, card, self.agenda, [f for f in scenario.foreign if f.card == n])
            for n, card in enumerate(scenario.cards)
        ]
        self._ran: dict[int, Ran] = {}
        self._done = 0

    def run(self) -> Run:
        """Raises Unfinished."""
        scenario, agenda = self.scenario, self.agenda
        for comfy in self.cards:
            comfy.began, comfy.ended = self._began, self._ended
        self.policy.begin(self)
        for job in scenario.jobs:
            agenda.at(job.submit_ms, functools.partial(self.policy.submitted, job))
        for death in scenario.deaths:
            agenda.at(death.at_ms, functools.partial(self._die, death))
        for posted in scenario.posted:
            agenda.at(posted.at_ms, functools.partial(self._post, posted))
        limit_ms = scenario.jobs[-1].submit_ms + PATIENCE_MS
        while self._done < len(scenario.jobs):
            if not agenda.step() or agenda.now_ms > limit_ms:
                left = len(scenario.jobs) - self._done
                raise Unfinished(f"{type(self.policy).__name__} left {left} of {len(scenario.jobs)} jobs lying")
        return Run(
            scenario,
            [self._ran[job.number] for job in scenario.jobs],
            loads=sum(comfy.loads for comfy in self.cards),
            busy_ms=sum(comfy.busy_ms for comfy in self.cards),
            wasted_ms=sum(comfy.wasted_ms for comfy in self.cards),
            resubmitted=self.policy.resubmitted,
        )

    def _began(self, comfy: Comfy, prompt: Prompt) -> None:
        if prompt.job is not None:
            self._ran[prompt.job.number] = Ran(prompt.job, comfy.number, prompt.began_ms)
        if not prompt.foreign:
            self.policy.began(comfy, prompt)

    def _ended(self, comfy: Comfy, prompt: Prompt) -> None:
        if prompt.job is not None:
            self._ran[prompt.job.number].ended_ms = self.agenda.now_ms
            self._done += 1
        if not prompt.foreign:
            self.policy.ended(comfy, prompt)

    def _post(self, posted: Posted) -> None:
        for _ in range(posted.prompts):
            self.cards[posted.card].post(Prompt(None, (), posted.work, foreign=True))

    def _die(self, death: Death) -> None:
        comfy = self.cards[death.card]
        if not comfy.alive:
            return
        self.policy.died(comfy, comfy.die())
        self.agenda.after(death.down_ms, functools.partial(self._rise, comfy))

    def _rise(self, comfy: Comfy) -> None:
        comfy.alive = True
        self.policy.back(comfy)
