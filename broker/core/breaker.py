"""Which workers get no work because nothing goes well there, and how that ends: by a probe. Pure.

Theory. What fails for a reason of the worker's own (retry.py says which) speaks against it until something succeeds
there. Three different jobs in a row, or one word that its card's process is broken, open its breaker. An open one is
probed, again and again: a small workflow that needs no model. The wait before a probe doubles with each setback, be it
a probe that failed or a breaker that opened again soon after it closed; so a link that flaps is left in peace. A
breaker belongs to the worker's name: neither a new session nor a new process of the broker closes it.
"""

from __future__ import annotations

from typing import Final

from broker.core.deadlines import Deadlines
from broker.core.health import Health
from broker.core.retry import VERDICTS
from broker.core.roster import BREAKER, Roster, Worker
from broker.core.rules import Now, Rules
from broker.core.step import Send, Step
from broker.protocol.records import BreakerState, Failure, Reason, WorkerState
from broker.protocol.worker import Probe, Probed

#: A breaker that closed longer ago than this has nothing to do with one that opens now.
CALM_MS: Final = 10 * 60_000


class Breakers:
    def __init__(self, rules: Rules, roster: Roster, deadlines: Deadlines) -> None:
        self._rules = rules
        self._roster = roster
        self._deadlines = deadlines
        #: Probes of this broker's life.
        self._probes = 0

    # ---- what speaks for and against a worker

    def failed(self, step: Step, name: str, subject: str, why: Failure, now: Now) -> None:
        """An attempt ended so on this worker. subject: the job, or whatever else is to count once."""
        known = self._roster.by_name.get(name)
        if known is None or not VERDICTS[why.reason].blames or known.breaker.state is not BreakerState.CLOSED:
            return
        known.breaker.against.add(subject)
        if why.reason is Reason.POISONED:
            self._open(step, known, f"poisoned: {why.text}", now)
        elif len(known.breaker.against) >= self._rules.breaker:
            self._open(step, known, f"{len(known.breaker.against)} failed in a row, the last: {why.text}", now)

    def succeeded(self, worker: Worker) -> None:
        worker.breaker.against.clear()

    # ---- probing

    def joined(self, present: Worker, now: Now) -> None:
        """A new session of a worker; whatever an earlier one was sent is lost with it."""
        why = self._roster.notes.get(BREAKER + present.name, "")
        if why and present.breaker.state is BreakerState.CLOSED:  # an earlier process of the broker opened it
            present.breaker = Health(BreakerState.OPEN, why, now.utc_ms)
        present.breaker.probed = ""
        if present.breaker.state is not BreakerState.CLOSED:
            self._look(present, now.mono_ms + self._rules.probe_first_ms)

    def ask(self, step: Step, present: Worker, why: str, now: Now, *, wait_ms: int = 0) -> None:
        """Send no more work before a probe has succeeded, however well it does."""
        if present.breaker.state is BreakerState.CLOSED:
            self._turn(step, present, BreakerState.PROBING, why, now)
        if not present.breaker.probed:
            self._look(present, now.mono_ms + wait_ms)

    def restarted(self, step: Step, present: Worker, now: Now) -> None:
        """Its ComfyUI is told to start anew: what a probe finds that was sent before tells nothing of what comes."""
        present.breaker.probed = ""
        self.ask(step, present, "its ComfyUI is started anew", now, wait_ms=self._rules.lease_ms)

    def due(self, step: Step, name: str, now: Now) -> None:
        """Time to send a probe, or to give one up. A worker that is away is looked at when it is back."""
        present = self._roster.by_name.get(name)
        if present is None or present.session not in self._roster.by_session:
            return
        breaker = present.breaker
        if breaker.state is BreakerState.CLOSED or present.state is WorkerState.DRAINING:
            return
        if breaker.probed:
            self._setback(step, present, f"no answer within {self._rules.probe_ms / 1000:g} s", now)
        elif present.jobs or present.lacks_comfyui:
            self._look(present, now.mono_ms + self._rules.heartbeat_ms)
        else:
            self._probes += 1
            breaker.probed, breaker.probe = present.session, self._probes
            step.sends.append(Send(present.session, Probe(serial=self._probes)))
            self._look(present, now.mono_ms + self._rules.probe_ms)
            self._turn(step, present, BreakerState.PROBING, breaker.why, now)

    def answered(self, step: Step, speaker: Worker, said: Probed, now: Now) -> None:
        breaker = speaker.breaker
        if (breaker.probed, breaker.probe) != (speaker.session, said.serial):
            return  # an old one
        if not said.passed:
            self._setback(step, speaker, said.why, now)
            return
        breaker.probed, breaker.closed_ms = "", now.mono_ms
        breaker.against.clear()
        self._turn(step, speaker, BreakerState.CLOSED, "", now)

    # ---- how

    def _open(self, step: Step, known: Worker, why: str, now: Now) -> None:
        breaker = known.breaker
        calm = breaker.closed_ms is None or now.mono_ms - breaker.closed_ms > CALM_MS
        breaker.setbacks = 0 if calm else breaker.setbacks + 1
        self._turn(step, known, BreakerState.OPEN, why, now)
        self._look(known, now.mono_ms + self._wait_ms(breaker.setbacks))

    def _setback(self, step: Step, present: Worker, why: str, now: Now) -> None:
        present.breaker.probed = ""
        present.breaker.setbacks += 1
        self._turn(step, present, BreakerState.OPEN, f"the probe failed: {why}", now)
        self._look(present, now.mono_ms + self._wait_ms(present.breaker.setbacks))

    def _wait_ms(self, setbacks: int) -> int:
        return min(self._rules.probe_cap_ms, self._rules.probe_first_ms << min(setbacks, 20))

    def _look(self, known: Worker, at_ms: int) -> None:
        self._deadlines.at(at_ms, "breaker", known.name)

    def _turn(self, step: Step, known: Worker, state: BreakerState, why: str, now: Now) -> None:
        breaker = known.breaker
        if breaker.state is not state:
            breaker.since_utc_ms = now.utc_ms
        breaker.state, breaker.why = state, why[:500]
        self._roster.remember(step, BREAKER, known.name, breaker.why if state is not BreakerState.CLOSED else "")
        self._roster.touch(known.name)
        self._roster.show(step, known)
