"""The whole worker without its I/O: the link, the attempts it holds, and how much more it could take. Pure.

One door for each thing that happens; each answers with what the shell is to do (asks.py), in order. The shell makes
every call from one loop and answers each ask before it makes the next about ComfyUI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from broker.protocol.records import Held, Reason, Timings
from broker.protocol.worker import (
    Abandon,
    Accepted,
    CancelAttempt,
    Complete,
    Dispatch,
    Drain,
    Fail,
    OutputsMissing,
    Probe,
    ProgressReport,
    Recorded,
    Restart,
    Welcome,
)
from comfyui import messages
from comfyui.replies import Finished, Found, Pending, Queue, QueueItem, Running
from comfyui.workflow import Workflow
from worker.core import verdict
from worker.core.asks import Deliver, Key, Listen, RestartComfy, Send, Survey
from worker.core.link import Facts, Identity, Link
from worker.core.mending import Mending
from worker.core.patience import earliest
from worker.core.probing import Probing
from worker.core.progress import Pacing
from worker.core.run import Run
from worker.core.steps import Step

#: Attempts whose outputs are on their way do not take a place in ComfyUI, but so many at most: a slow broker must not
#: pile them up.
DELIVERING_MOST: Final = 2
#: All that is held, ended attempts included, fits one heartbeat.
HELD_MOST: Final = 32
SURVEY_AGAIN_MS: Final = 1_000
#: Why a worker that drains hands attempts back.
LEAVING: Final = "handed back by a worker that is leaving"


class Machine:
    def __init__(
        self,
        who: Identity,
        probe: Workflow,
        mending: Mending,
        *,
        prefetch: int,
        pacing: Pacing,
        draw: Callable[[], float],
    ) -> None:
        """probe: the workflow that shows whether ComfyUI works. draw: uniform in [0, 1)."""
        self.link = Link(who, draw=draw, held=self._held)
        self.runs: dict[Key, Run] = {}
        #: The client id of ComfyUI's socket. Its beginning marks this worker's prompts, whichever process sent them.
        self.client_id = f"comfyfleet:{who.worker}:{who.session}"
        self._mark = f"comfyfleet:{who.worker}:"
        self._prefetch = prefetch
        self._pacing = pacing
        self._probing = Probing(probe, who.session)
        self._mending = mending
        self._up = False
        #: It answers calls; a frozen one keeps its socket open.
        self._answers = True
        self._draining = ""
        #: The card fails everything until ComfyUI is started anew.
        self._poisoned = False
        #: Whether ComfyUI's queue was searched for prompts that nobody waits for; due when it is not None.
        self._surveyed = False
        self._survey_ms: int | None = None
        #: When ComfyUI's socket last said anything.
        self._socket_ms = 0
        self._slots = 1

    def deadline_ms(self) -> int | None:
        """When tick must come at the latest; None: whenever something else happens."""
        mine = self.link.deadline_ms(), self._survey_ms, self._mending.deadline_ms()
        return earliest(*mine, *(run.deadline_ms() for run in self.runs.values()))

    # ---- ComfyUI

    def comfy_up(self, facts: Facts, *, targeted_interrupt: bool, now_ms: int) -> list[Any]:
        """ComfyUI answers and its socket is open. May come again at any time: after each reconnect, or with new facts.

        targeted_interrupt: it can stop one prompt by its id. Where it cannot, an interrupt could hit the prompt staged
        behind the one meant, so nothing is staged.
        """
        asks: list[Any] = []
        self._slots = 1 + (self._prefetch if targeted_interrupt else 0)
        self._poisoned = self._poisoned and self._up
        self._up = self._answers = True
        self._mending.back()
        self._socket_ms = now_ms
        self.link.introduce(asks, facts, now_ms)
        for run in self.runs.values():
            run.look_now(now_ms)
        if self.link.joined:
            self._survey_ms = now_ms
        return self._settled(asks, now_ms)

    def comfy_down(self, now_ms: int) -> list[Any]:
        """ComfyUI's socket has ended and cannot be opened again for now, or could never be."""
        asks: list[Any] = []
        self._up = False
        self._mending.away(now_ms)
        self.link.introduce_alone(asks, now_ms)
        return self._settled(asks, now_ms)

    def comfy_answers(self, answers: bool, now_ms: int) -> list[Any]:
        """Whether ComfyUI, whose socket is open, still answers calls. One at work may be too busy to."""
        self._answers = answers
        if answers:
            self._mending.back()
        elif not any(run.step is Step.RUNNING and not run.stuck for run in self.runs.values()):
            self._mending.away(now_ms)
        return self._settled([], now_ms)

    def heard(self, arrived: Iterable[messages.Message], now_ms: int) -> list[Any]:
        """What has arrived on ComfyUI's socket, of whomever."""
        asks: list[Any] = []
        for message in arrived:
            self._socket_ms = now_ms
            run = self._subject(message)
            if run is not None:
                out: list[Any] = []
                run.heard(out, message, now_ms)
                self._route(asks, out, now_ms)
        return self._settled(asks, now_ms)

    def looked(self, key: Key, found: Found | None, now_ms: int) -> list[Any]:
        """The answer to Look; None when ComfyUI did not give any."""
        asks: list[Any] = []
        run = self.runs.get(key)
        if run is None:
            return asks
        before, out = run.step, list[Any]()
        if found is None:
            run.unreachable(out, now_ms, gone=not self._up)
        else:
            run.looked(out, found, now_ms)
            self._listen(asks, found, before, run.step, now_ms)
        self._route(asks, out, now_ms)
        return self._settled(asks, now_ms)

    def surveyed(self, queue: Queue | None, now_ms: int) -> list[Any]:
        """The answer to Survey; None when ComfyUI did not give any. Strays of this worker's earlier lives must go."""
        asks: list[Any] = []
        if queue is None:
            self._survey_ms = now_ms + SURVEY_AGAIN_MS
            return self._settled(asks, now_ms)
        self._surveyed = True
        ours = {run.prompt_id for run in self.runs.values()}
        # What waits goes first: it would begin when what runs is interrupted.
        for item in (*queue.pending, *queue.running):
            if self._marked(item) and not ours & {item.prompt_id, item.submit_id}:
                out: list[Any] = []
                key = (item.prompt_id, 0)
                self.runs[key] = Run.stray(out, key, item.prompt_id, self._pacing, now_ms)
                self._route(asks, out, now_ms)
        return self._settled(asks, now_ms)

    def answer(self, key: Key, tell: Callable[[Run, list[Any]], None], now_ms: int) -> list[Any]:
        """Tell the attempt what came of an ask about it; one that is gone does not mind."""
        asks: list[Any] = []
        run = self.runs.get(key)
        if run is not None:
            out: list[Any] = []
            tell(run, out)
            self._route(asks, out, now_ms)
        return self._settled(asks, now_ms)

    # ---- the broker

    def received(self, message: Any, now_ms: int) -> list[Any]:
        """A checked message of the broker."""
        asks: list[Any] = []
        out: list[Any] = []
        self.link.received(asks, message, now_ms)
        match message:
            case Welcome():
                self._welcomed(asks, out, message, now_ms)
            case Dispatch() if self.link.joined:
                self._dispatched(asks, out, message, now_ms)
            case Drain():
                self._drain(asks, out, "the broker asked it to", now_ms)
            case Probe(serial=serial):
                self._probe(asks, out, serial, now_ms)
            case Restart(why=why):
                self._mending.ask(why, now_ms)
                for run in self.runs.values():
                    run.hand_back(out, "its ComfyUI is started anew", now_ms, softly=False)
            case Abandon() | CancelAttempt() | Recorded() | OutputsMissing():
                self._about(out, message, now_ms)
        self._route(asks, out, now_ms)
        return self._settled(asks, now_ms)

    def drain(self, why: str, now_ms: int) -> list[Any]:
        """Take no more, hand back what waits, finish what runs, leave."""
        asks: list[Any] = []
        out: list[Any] = []
        self._drain(asks, out, why, now_ms)
        self._route(asks, out, now_ms)
        return self._settled(asks, now_ms)

    # ---- time

    def tick(self, now_ms: int) -> list[Any]:
        asks: list[Any] = []
        self.link.tick(asks, now_ms)
        if self._survey_ms is not None and now_ms >= self._survey_ms:
            self._survey_ms = None
            asks.append(Survey())
        restart = self._mending.due(now_ms, busy=self._in_front() > 0)
        if restart:
            asks.append(RestartComfy(restart))
        for run in list(self.runs.values()):
            out: list[Any] = []
            run.tick(out, now_ms)
            self._route(asks, out, now_ms)
        return self._settled(asks, now_ms)

    # ---- how

    def _welcomed(self, asks: list[Any], out: list[Any], said: Welcome, now_ms: int) -> None:
        for run in self.runs.values():
            if run.acceptance is not None:
                asks.append(Send(run.acceptance))
        for resume in said.resume:
            key = resume.job_id, resume.attempt
            if key not in self.runs:
                self.runs[key] = Run.resumed(out, resume, self._pacing, now_ms)
                if self._draining:
                    self.runs[key].hand_back(out, LEAVING, now_ms)
        if self._up and not self._surveyed:
            self._survey_ms = now_ms

    def _dispatched(self, asks: list[Any], out: list[Any], said: Dispatch, now_ms: int) -> None:
        self.link.dispatched(said.serial)
        key = said.job_id, said.attempt
        known = self.runs.get(key)
        if known is not None:
            asks += [Send(message) for message in (known.end, known.acceptance) if message is not None]
        elif self._draining:
            timings = Timings(staging_ms=0, waiting_ms=0, running_ms=0, loading_ms=0, finishing_ms=0)
            why = verdict.failure(Reason.DRAINING, "the worker is leaving")
            self.link.ended(asks, Fail(job_id=key[0], attempt=key[1], failure=why, timings=timings), now_ms)
        elif self._in_front() < self._slots:
            self.runs[key] = Run.dispatched(out, said, self._pacing, now_ms)

    def _about(self, out: list[Any], said: Abandon | CancelAttempt | Recorded | OutputsMissing, now_ms: int) -> None:
        key = said.job_id, said.attempt
        if isinstance(said, (Abandon, Recorded)):
            self.link.recorded(key)
        run = self.runs.get(key)
        if run is None:
            return
        match said:
            case Abandon():
                run.abandon(out, now_ms)
            case CancelAttempt():
                run.cancel(out, now_ms)
            case Recorded():
                run.recorded()
            case OutputsMissing():
                run.outputs_missing(out)

    def _drain(self, asks: list[Any], out: list[Any], why: str, now_ms: int) -> None:
        self._draining = self._draining if self._draining else why
        self.link.drain(asks)
        for run in self.runs.values():
            run.hand_back(out, LEAVING, now_ms)

    def _probe(self, asks: list[Any], out: list[Any], serial: int, now_ms: int) -> None:
        self._probing.serial = serial
        if self._probing.key is not None or self._draining:
            return
        there = self._up and self._answers
        if not there or self._mending.wanted:
            why = "its ComfyUI is about to be started anew" if there else "its ComfyUI does not answer"
            asks.append(Send(self._probing.refused(why)))
            return
        run = self._probing.begin(out, self._pacing, now_ms)
        self.runs[run.key] = run

    def _of_probe(self, asks: list[Any], said: Any, now_ms: int) -> None:
        """What the probe says is ours to answer; what it asks of ComfyUI is asked, but for its picture."""
        match said:
            case Complete() | Fail():
                run = self.runs.get((said.job_id, said.attempt))
                asks.append(Send(self._probing.answer(said)))
                if run is not None:
                    run.recorded()
                self._poisoned = self._poisoned and not isinstance(said, Complete)
                if isinstance(said, Fail) and said.failure.reason is not Reason.INVALID_WORKFLOW:
                    self._mending.want(f"the probe failed: {said.failure.text}", now_ms)
            case Deliver(key):
                out: list[Any] = []
                self.runs[key].delivered(out, (), now_ms)
                self._route(asks, out, now_ms)
            case Accepted() | ProgressReport():
                pass
            case _:
                asks.append(said)

    def _route(self, asks: list[Any], out: list[Any], now_ms: int) -> None:
        """What attempts say goes to the broker through the link; what they ask goes to the shell."""
        for said in out:
            if self._probing.is_about(said):
                self._of_probe(asks, said, now_ms)
                continue
            match said:
                case Complete() | Fail():
                    if isinstance(said, Fail) and said.failure.reason is Reason.POISONED:
                        self._poisoned = True
                        self._mending.want(f"its card fails everything: {said.failure.text}", now_ms)
                    self.link.ended(asks, said, now_ms)
                case Accepted() | ProgressReport():
                    # Lost while there is no broker: progress grows old, and Welcome is answered with every acceptance.
                    if self.link.joined:
                        asks.append(Send(said, can_wait=True))
                case _:
                    asks.append(said)

    def _settled(self, asks: list[Any], now_ms: int) -> list[Any]:
        """What follows from everything together, once every single thing is handled."""
        for key in [key for key, run in self.runs.items() if run.over]:
            del self.runs[key]
        self.link.room(asks, self._room(), idle=self._in_front() == 0)
        if self._draining and not self.link.ends and all(run.settled for run in self.runs.values()):
            self.link.leave(asks, self._draining)
        return asks

    def _room(self) -> int:
        stuck = any(run.stuck for run in self.runs.values())
        sound = self._up and self._answers and not self._poisoned and not self._mending.wanted
        if not sound or not self._surveyed or stuck:
            return 0
        going = sum(1 for run in self.runs.values() if run.end is None)
        places = (self._slots - self._in_front(), self._slots + DELIVERING_MOST - going, HELD_MOST - len(self.runs))
        return max(0, min(places))

    def _in_front(self) -> int:
        return sum(1 for run in self.runs.values() if run.in_front)

    def _held(self) -> tuple[Held, ...]:
        runs = (run for run in self.runs.values() if run.key != self._probing.key)
        return tuple(held for run in runs if (held := run.held) is not None)

    def _subject(self, message: messages.Message) -> Run | None:
        """The attempt a message is about. What names no prompt is about the one that runs."""
        if isinstance(message, (messages.Status, messages.FeatureFlags, messages.Unknown)):
            return None
        prompt_id = getattr(message, "prompt_id", None)
        for run in self.runs.values():
            if run.prompt_id == prompt_id or (prompt_id is None and run.step is Step.RUNNING):
                return run
        return None

    def _listen(self, asks: list[Any], found: Found, before: Step, after: Step, now_ms: int) -> None:
        """Open ComfyUI's socket anew if it is the wrong one, or deaf."""
        silent_ms = now_ms - self._socket_ms
        if before is Step.SOUGHT:
            theirs = (
                found.item.client_id if isinstance(found, (Pending, Running)) and self._marked(found.item) else None
            )
            if theirs is not None and theirs != self.client_id:
                # Its events follow the id it was submitted under, by an earlier process.
                self.client_id = theirs
                asks.append(Listen(theirs))
        elif isinstance(found, Finished) and after is not before and self._up and silent_ms >= self._pacing.poll_ms:
            # The end of a prompt is told to every socket: one that heard nothing has been struck from ComfyUI's list.
            self._socket_ms = now_ms
            asks.append(Listen(self.client_id))

    def _marked(self, item: QueueItem) -> bool:
        return item.client_id is not None and item.client_id.startswith(self._mark)
