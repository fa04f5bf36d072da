"""One attempt, from its dispatch to its one ending: what ComfyUI is asked, and what the broker is told. Pure.

Theory. Two things are followed apart. `step` is where the prompt is: still with us, in ComfyUI, or OUT of it. `end` is
what the broker was told, once. They differ when an attempt ends while its prompt still runs (a hung node, an attempt
taken away): then nobody waits for the prompt, and it is taken out of ComfyUI as soon as ComfyUI lets it.

ComfyUI's socket is a hint. Where the prompt is, and how it ended, is only ever learnt from `looked`: /history and
/queue, asked after silence, after a reconnect, and when the socket says that it is over. A prompt in neither is lost.
To take the prompt back (cancel, drain, limits) is only a wish: if the prompt finishes first, its result stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Failure, Held, Limits, Output, Phase, Reason, Resume
from broker.protocol.worker import Accepted, Complete, Dispatch, Fail
from comfyui import messages
from comfyui.replies import Absent, Finished, Found, HistoryEntry, Pending, Running
from comfyui.workflow import Workflow, WorkflowError, parse
from worker.core import verdict
from worker.core.asks import Dequeue, Drop, Free, Interrupt, Key, Look, Stage, Submit
from worker.core.delivery import Delivery
from worker.core.inputs import renamed
from worker.core.patience import AGAIN_MS, Patience
from worker.core.progress import Pacing
from worker.core.steps import IN_COMFYUI, MOVES, PHASES, Stages, Step
from worker.core.witness import Witness

#: How often a prompt is sent at most.
SUBMITS: Final = 3


class Run:
    def __init__(self, key: Key, limits: Limits, pacing: Pacing, now_ms: int, *, step: Step, prompt_id: str) -> None:
        self.key = key
        self.step = step
        #: What ComfyUI calls the prompt; until it has answered, what it was or will be asked to call it.
        self.prompt_id = prompt_id
        #: What the broker was told in the end. `settled`: it has that, or never wanted it.
        self.end: Complete | Fail | None = None
        self.settled = False
        #: None for a prompt that was found again.
        self._workflow: Workflow | None = None
        self._witness = Witness(key, None, pacing)
        self._stages = Stages(now_ms)
        self._patience = Patience(limits, pacing.poll_ms, now_ms)
        #: Why the prompt is to be taken out of ComfyUI, and whether one that runs is left to finish.
        self._recall: Failure | None = None
        self._recall_softly = False
        #: Whether ComfyUI has confirmed the prompt to this process, and whether to an earlier one.
        self._accepted = False
        self._accepted_before = False
        self._submits = 0
        self._delivery = Delivery(key)

    # ---- the three ways an attempt comes to a worker

    @classmethod
    def dispatched(cls, out: list[Any], said: Dispatch, pacing: Pacing, now_ms: int) -> Run:
        key = said.job_id, said.attempt
        run = cls(key, said.limits, pacing, now_ms, step=Step.INPUTS, prompt_id=prompt_id_for(*key))
        try:
            workflow = parse(said.workflow)
        except WorkflowError as e:
            run.not_taken(out, verdict.failure(Reason.INVALID_WORKFLOW, str(e)), now_ms)
            return run
        run._workflow, run._witness = workflow, Witness(key, workflow, pacing)
        if said.files:
            out.append(Stage(key, said.files))
        else:
            run._submit(out, workflow)
        return run

    @classmethod
    def resumed(cls, out: list[Any], said: Resume, pacing: Pacing, now_ms: int) -> Run:
        """An earlier process of this worker had it: look for its prompt before anything else."""
        key = said.job_id, said.attempt
        prompt_id = said.prompt_id if said.prompt_id else prompt_id_for(*key)
        run = cls(key, said.limits, pacing, now_ms, step=Step.SOUGHT, prompt_id=prompt_id)
        run._accepted_before = bool(said.prompt_id)
        if said.cancelling:
            run.cancel(out, now_ms)
        out.append(Look(key, prompt_id))
        return run

    @classmethod
    def stray(cls, out: list[Any], key: Key, prompt_id: str, pacing: Pacing, now_ms: int) -> Run:
        """A prompt of this worker's that nobody waits for: it only has to go."""
        never = Limits(start_to_close_ms=0, stall_ms=0, hung_ms=0)
        run = cls(key, never, pacing, now_ms, step=Step.SOUGHT, prompt_id=prompt_id)
        run.settled = True
        out.append(Look(key, prompt_id))
        return run

    # ---- what others may know

    @property
    def over(self) -> bool:
        """Nothing more will come of it: forget it."""
        return self.step is Step.OUT and self.settled

    @property
    def in_front(self) -> bool:
        """It takes one of the worker's places in ComfyUI."""
        return self.step not in (Step.DELIVERING, Step.OUT)

    @property
    def stuck(self) -> bool:
        """Its attempt has ended, but ComfyUI has not let go of the prompt."""
        return self.in_front and not self._wanted

    @property
    def held(self) -> Held | None:
        """As the broker is to see it; None when the broker has let go of it."""
        phase = PHASES[self.step] if self.end is None else Phase.ENDED
        return None if self.settled else Held(job_id=self.key[0], attempt=self.key[1], phase=phase)

    @property
    def acceptance(self) -> Accepted | None:
        """What confirms the attempt, if it can be confirmed yet; repeated after a reconnect."""
        known = self._accepted and self._wanted
        return Accepted(job_id=self.key[0], attempt=self.key[1], prompt_id=self.prompt_id) if known else None

    def deadline_ms(self) -> int | None:
        """When tick must come at the latest."""
        times = (
            (self._patience.deadline_ms(), self._witness.deadline_ms()) if self._wanted else (self._patience.look_ms,)
        )
        return min((at for at in times if at is not None), default=None)

    # ---- the broker's wishes

    def cancel(self, out: list[Any], now_ms: int) -> None:
        self._withdraw(out, verdict.failure(Reason.CANCELLED, "cancelled"), now_ms)

    def hand_back(self, out: list[Any], why: str, now_ms: int, *, softly: bool = True) -> None:
        """Let another worker have it. softly: unless it runs already."""
        if not softly or self.step is not Step.RUNNING:
            self._withdraw(out, verdict.failure(Reason.DRAINING, why), now_ms, softly=softly)

    def abandon(self, out: list[Any], now_ms: int) -> None:
        """The attempt is not ours any more: say nothing more about it, and take its prompt back."""
        self.settled = True
        if self.step in IN_COMFYUI:
            self._take_back(out, now_ms)
        elif self.step is not Step.OUT:
            out.append(Drop(self.key))
            self._out(now_ms)

    def recorded(self) -> None:
        self.settled = self.settled or self.end is not None

    def outputs_missing(self, out: list[Any]) -> None:
        """The store lacks files that Complete named: send all again; what it has costs one question each."""
        if isinstance(self.end, Complete) and not self.settled and self.step is Step.OUT:
            self._move(Step.DELIVERING)
            out += self._delivery.again()

    # ---- answers from the shell

    def inputs_staged(self, out: list[Any], names: Mapping[str, str], now_ms: int) -> None:
        """names: as the workflow says it -> as ComfyUI calls it."""
        if self.step is not Step.INPUTS or self._workflow is None:
            return
        try:
            self._submit(out, renamed(self._workflow, names))
        except WorkflowError as e:
            self.not_taken(out, verdict.failure(Reason.INVALID_WORKFLOW, str(e)), now_ms)

    def not_taken(self, out: list[Any], why: Failure, now_ms: int) -> None:
        """Its files could not be had, or ComfyUI refused it."""
        if self.step in (Step.INPUTS, Step.SUBMITTING):
            self._out(now_ms)
            self._fail(out, why, now_ms)

    def moving(self, now_ms: int) -> None:
        """Files of it are on their way: it is not stalled."""
        self._patience.sign(now_ms)

    def submitted(self, out: list[Any], prompt_id: str, skipped: Mapping[str, tuple[str, ...]], now_ms: int) -> None:
        """ComfyUI took it. skipped: outputs it refused all the same, by node, with the reasons."""
        if self.step is not Step.SUBMITTING:
            return
        self.prompt_id = prompt_id
        self._found(out, Step.WAITING, now_ms)
        if skipped:
            self._fail(out, verdict.of_skipped(skipped), now_ms)
            self._take_back(out, now_ms)

    def unsure(self, now_ms: int) -> None:
        """Nobody knows whether ComfyUI took it: look before sending it again."""
        if self.step is Step.SUBMITTING:
            self._move(Step.UNSURE)
            self._patience.look_at(now_ms + AGAIN_MS)

    def looked(self, out: list[Any], found: Found, now_ms: int) -> None:
        """The truth about the prompt."""
        if self.step not in IN_COMFYUI:
            return
        match found:
            case Pending(item) | Running(item):
                self.prompt_id = item.prompt_id
                self._patience.found(now_ms)
                if isinstance(found, Pending) and found.ahead:
                    self._patience.sign(now_ms)  # whosever those are, and however long they take
                if isinstance(found, Running):
                    self._runs(out, now_ms)
                elif self.step is not Step.RUNNING:
                    self._found(out, Step.WAITING, now_ms)
                if self._unwelcome:
                    self._take_back(out, now_ms)
                    self._patience.look_at(now_ms + AGAIN_MS)
            case Finished(entry):
                self._finished(out, entry, now_ms)
            case Absent():
                if self._patience.missed(now_ms) or (self.step is Step.WAITING and self._unwelcome):
                    self._lost(out, now_ms)

    def unreachable(self, out: list[Any], now_ms: int, *, gone: bool) -> None:
        """ComfyUI did not say where it is. gone: its socket has ended too and cannot be opened again."""
        if self.step in IN_COMFYUI and self._patience.unanswered(now_ms, gone=gone):
            self._lost(out, now_ms, gone=True)

    def look_now(self, now_ms: int) -> None:
        """The socket was opened anew: whatever it should have said meanwhile is gone."""
        if self.step in IN_COMFYUI:
            self._patience.look_at(now_ms)

    def delivered(self, out: list[Any], outputs: tuple[Output, ...], now_ms: int) -> None:
        """What was to be delivered is with the broker, or on its way."""
        self._delivery.stored(outputs)
        self._complete(out, now_ms)

    def delivery_failed(self, out: list[Any], text: str, now_ms: int) -> None:
        out += self._delivery.failed()
        if self.step is Step.DELIVERING and not self._delivery.under_way:
            self._move(Step.OUT)
            self.end = None
            self._fail(out, verdict.failure(Reason.OUTPUT_LOST, text), now_ms)
            out.append(Free())  # else the next try would get the same lost file out of ComfyUI's cache

    # ---- ComfyUI's socket: hints

    def heard(self, out: list[Any], message: messages.Message, now_ms: int) -> None:
        """A message about this prompt, or one that names none while this prompt runs."""
        if self.step not in IN_COMFYUI:
            return
        self._patience.heard(now_ms, tells=not self._unwelcome)
        if isinstance(message, messages.Executing) and message.node is None:
            out.append(Look(self.key, self.prompt_id))
            return
        self._runs(out, now_ms)
        if self._wanted:
            out += self._witness.heard(message, now_ms)
            if isinstance(message, messages.ExecutionSuccess):
                out += self._delivery.hinted(self._witness.results(self._witness.files))
            if overflow := self._witness.overflow():
                self._fail(out, verdict.failure(Reason.INVALID_WORKFLOW, overflow), now_ms)
                self._take_back(out, now_ms)

    # ---- time

    def tick(self, out: list[Any], now_ms: int) -> None:
        if self._patience.look_due(now_ms):
            out.append(Look(self.key, self.prompt_id))
        if not self._wanted:
            return
        out += self._witness.due(now_ms)
        overdue = self._patience.overdue(now_ms) if self.in_front else None
        if overdue is not None:
            self._withdraw(out, overdue, now_ms)
        elif self._recall is not None and self._patience.exhausted(now_ms):
            self._fail(out, self._recall, now_ms)

    # ---- how

    @property
    def _wanted(self) -> bool:
        """Somebody still waits for its end."""
        return self.end is None and not self.settled

    @property
    def _unwelcome(self) -> bool:
        """Its prompt should not be in ComfyUI."""
        return self._recall is not None or not self._wanted

    def _move(self, step: Step) -> None:
        if step not in MOVES[self.step]:
            raise AssertionError(f"{self.key}: {self.step} -> {step}")
        self.step = step

    def _out(self, now_ms: int, step: Step = Step.OUT) -> None:
        """The prompt is not, or never was, in ComfyUI."""
        self._move(step)
        self._stages.out(now_ms)
        self._patience.rest()

    def _submit(self, out: list[Any], workflow: Workflow) -> None:
        self._move(Step.SUBMITTING)
        self._workflow = workflow
        self._submits += 1
        out.append(Submit(self.key, self.prompt_id, workflow))

    def _found(self, out: list[Any], step: Step, now_ms: int) -> None:
        """ComfyUI has the prompt, and there."""
        if self.step is step:
            return
        self._move(step)
        self._stages.submitted(now_ms)
        self._patience.heard(now_ms)
        if not self._accepted and self._wanted:
            self._accepted = True
            out.append(self.acceptance)

    def _runs(self, out: list[Any], now_ms: int) -> None:
        self._patience.sign(now_ms)
        if self.step is Step.RUNNING:
            return
        self._found(out, Step.RUNNING, now_ms)
        self._stages.running(now_ms)
        self._patience.running(now_ms)
        if self._recall_softly:
            self._recall, self._recall_softly = None, False
        if self._wanted:
            out += self._witness.started(now_ms)

    def _finished(self, out: list[Any], entry: HistoryEntry, now_ms: int) -> None:
        self.prompt_id = entry.prompt_id
        if self.step is not Step.RUNNING:
            self._found(out, Step.WAITING, now_ms)
        self._stages.measured(entry.run_ms if entry.run_ms is not None else 0)
        results = self._witness.results(entry.files)
        failed = verdict.of_history(entry, results)
        if not self._wanted:
            self._out(now_ms)
        elif failed is None:
            self._out(now_ms, Step.DELIVERING)
            if missed := self._witness.missed(entry):
                self.delivery_failed(out, missed, now_ms)
            else:
                out += self._delivery.confirmed(results)
                self._complete(out, now_ms)
        else:
            self._out(now_ms)
            if failed.reason is Reason.OUT_OF_MEMORY:
                out.append(Free())
            if failed.reason is Reason.INTERRUPTED and self._recall is not None:
                failed = self._recall
            self._fail(out, failed, now_ms)

    def _complete(self, out: list[Any], now_ms: int) -> None:
        """Say so once the history has confirmed it and every result is with the broker, or on its way."""
        outputs = self._delivery.outputs
        if self.step is Step.DELIVERING and outputs is not None:
            self._move(Step.OUT)
            timings = self._stages.timings(now_ms, self._witness.loading_ms)
            self.end = Complete(job_id=self.key[0], attempt=self.key[1], outputs=outputs, timings=timings)
            out.append(self.end)

    def _withdraw(self, out: list[Any], why: Failure, now_ms: int, *, softly: bool = False) -> None:
        """Take the prompt back and end the attempt with `why`, unless it finishes first. softly: only if it waits."""
        if not self._wanted or not self.in_front:
            return
        if self._recall is None or (self._recall_softly and not softly):
            self._recall, self._recall_softly = why, softly
        if self.step in IN_COMFYUI:
            self._take_back(out, now_ms)
        else:
            out.append(Drop(self.key))
            self._out(now_ms)
            self._fail(out, self._recall, now_ms)

    def _take_back(self, out: list[Any], now_ms: int) -> None:
        """Ask ComfyUI to let go of the prompt; `looked` tells whether it did, and asks again."""
        if self.step is Step.RUNNING:
            out.append(Interrupt(self.prompt_id))
        elif self.step is Step.WAITING:
            out.append(Dequeue(self.prompt_id))
        self._patience.look_at(now_ms + AGAIN_MS if self.step is Step.RUNNING else now_ms)

    def _lost(self, out: list[Any], now_ms: int, *, gone: bool = False) -> None:
        """ComfyUI does not have the prompt. gone: there is no ComfyUI."""
        again = self.step is Step.UNSURE and not self._unwelcome and not gone and self._submits < SUBMITS
        if again and self._workflow is not None:
            self._patience.start_anew()
            self._submit(out, self._workflow)
            return
        loss = verdict.of_loss(self.step, accepted_before=self._accepted_before, gone=gone)
        self._out(now_ms)
        self._fail(out, self._recall if self._recall is not None else loss, now_ms)

    def _fail(self, out: list[Any], why: Failure, now_ms: int) -> None:
        if self._wanted:
            timings = self._stages.timings(now_ms, self._witness.loading_ms)
            self.end = Fail(job_id=self.key[0], attempt=self.key[1], failure=why, timings=timings)
            out.append(self.end)
