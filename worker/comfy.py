"""This worker's ComfyUI: brings its socket up again and again, learns what it is, makes the calls the core asks for.

One call a turn of the loop, and each ends within the client's limit: however ComfyUI hangs, heartbeats go out between.
Decides nothing about attempts: what came of a call goes to the machine, and what that asks goes to `act`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any, Final, TypeVar

from broker.protocol.worker import Capabilities
from comfyui.catalogue import capability_digest, offers
from comfyui.client import LIMIT_S, ComfyClient
from comfyui.errors import ComfyError, ComfyLost, ComfyRejected, ComfyUnreachable
from comfyui.http import Http
from comfyui.messages import Status
from comfyui.replies import SystemStats
from comfyui.words import plain
from worker.core import offer, verdict
from worker.core.asks import Dequeue, Free, Interrupt, Key, Look, Submit, Survey
from worker.core.link import Facts
from worker.core.machine import Machine
from worker.core.run import Run
from worker.errands import Errand
from worker.gpu import Gauge

#: Between tries to reach a ComfyUI that is not there; doubles up to the second.
RETRY_MS: Final = 200
RETRY_MAX_MS: Final = 2_000
#: How often it is asked anew what nodes and models it has: files are added to a running server.
REFRESH_MS: Final = 10 * 60_000
#: How often it is asked for its card's memory, where only it knows, and whether it lives, where it says nothing.
LOOK_MS: Final = 10_000
#: After a call without an answer the next comes sooner; so many in a row, and it counts as frozen.
MISSED_MS: Final = 2_000
MISSES: Final = 2
#: How often the log says that it is still waited for.
REMIND_MS: Final = 60_000
#: What a prompt carries, so that whoever reads ComfyUI's queue sees where it comes from.
EXTRA_KEY: Final = "comfyfleet"
#: What the contract lets a heartbeat say of it.
FAULT_CHARS: Final = 500
#: What to do about one that has never answered.
MEND: Final = "start it there, or set [worker] comfyui (--comfyui) to where it is"

log = logging.getLogger(__name__)

T = TypeVar("T")
Act = Callable[[list[Any]], None]


class Comfy:
    def __init__(self, client: ComfyClient, machine: Machine, gauge: Gauge, *, now_ms: Callable[[], int], act: Act):
        self.client = client
        #: Prompts in its queue, ours and others'.
        self.queue_length = 0
        #: What jobs it can serve, and the document that says so in full, under its digest.
        self.capabilities: Capabilities | None = None
        self.document = b""
        self._machine = machine
        self._gauge = gauge
        self._now_ms = now_ms
        self._act = act
        self._calls: deque[Any] = deque()
        self._facts: Facts | None = None
        self._learnt_ms = 0
        #: Whether the next thing to do is to open the socket again, though one is open.
        self._reopen = False
        #: When it last said anything, and calls since then that it did not answer.
        self._heard_ms = 0
        self._misses = 0
        #: Why it was last found not to serve, and when the log said so.
        self._fault = "it has not answered yet"
        self._reminded_ms = 0

    @property
    def up(self) -> bool:
        return self.client.connected

    @property
    def fault(self) -> str:
        """Why it does not serve, as far as is known; empty: it does. A frozen one keeps its socket open."""
        return "" if self.up and self._facts is not None and self._misses < MISSES else self._fault

    def fileno(self) -> int:
        """The socket's descriptor; -1 while it is not open."""
        return self.client.fileno() if self.up else -1

    @property
    def waiting(self) -> bool:
        """Messages have been taken off the socket and not read yet."""
        return self.client.waiting

    # ---- the socket

    def listen(self, client_id: str) -> None:
        """Open the socket anew under this id."""
        self.client.client_id = client_id
        self._reopen = True

    def read(self) -> bool:
        """Hand on whatever has arrived on the socket. Answers whether it is still open."""
        try:
            arrived = self.client.receive()
        except ComfyUnreachable as e:
            log.warning("comfyui's socket ended", extra={"fields": {"fault": str(e)}})
            self._blame(e)
            self._act(self._machine.comfy_down(self._now_ms()))
            return False
        if arrived:
            self._answered()
            self.queue_length = next(
                (message.queue_remaining for message in reversed(arrived) if isinstance(message, Status)),
                self.queue_length,
            )
            self._act(self._machine.heard(arrived, self._now_ms()))
        return True

    def watch(self) -> Errand:
        """Keep ComfyUI known and its socket open, for ever."""
        wait_ms = RETRY_MS
        while True:
            fresh = self._facts is not None and self._now_ms() - self._learnt_ms < REFRESH_MS
            if self.up and not self._reopen and fresh:
                yield from self._idle()
                continue
            try:
                yield from self._rise()
                wait_ms = RETRY_MS
            except ComfyError as e:
                self._lack(e, first=wait_ms == RETRY_MS)
                yield wait_ms
                wait_ms = min(2 * wait_ms, RETRY_MAX_MS)

    def _lack(self, error: ComfyError, *, first: bool) -> None:
        """It cannot be reached, or what answers is no ComfyUI. first: of such tries in a row."""
        self._blame(error)
        if first or self._now_ms() - self._reminded_ms >= REMIND_MS:
            self._reminded_ms = self._now_ms()
            until = "is ready once" if self.capabilities is None else "takes no work until"
            told = f"waiting for comfyui: this worker {until} it answers"
            log.warning(told, extra={"fields": {"fault": self._fault}})
        if not self.up:
            self._facts = None
        if self._facts is None:
            self._act(self._machine.comfy_down(self._now_ms()))

    def _idle(self) -> Errand:
        if self._gauge.needs_comfy or self._now_ms() - self._heard_ms >= LOOK_MS:
            stats = self._answer(self.client.system_stats)
            if stats is not None:
                self._gauge.told(stats)
        yield MISSED_MS if self._misses else LOOK_MS

    def _rise(self) -> Errand:
        """Open the socket if that is to be done, and learn what ComfyUI is if that is not known, or old."""
        if not self.up or self._reopen:
            self._reopen = False
            stats = self.client.connect()
        else:
            stats = self.client.system_stats()
        facts, now_ms = self._facts, self._now_ms()
        if facts is None or now_ms - self._learnt_ms >= REFRESH_MS:
            yield 0
            facts = yield from self._learn(stats)
        targeted = self.client.features().targeted_interrupt
        self._answered()
        self._act(self._machine.comfy_up(facts, targeted_interrupt=targeted, now_ms=self._now_ms()))

    def _learn(self, stats: SystemStats) -> Generator[int, None, Facts]:
        """Ask what ComfyUI is and has: the longest of its answers, so each has a turn of its own."""
        described = self.client.object_info()
        yield 0
        with closing(Http(self.client.url, limit_s=LIMIT_S)) as http:
            simulated = http.call("GET", "/simulator", by=http.by(), also=frozenset({404})).status == 200
        digest, self.document = capability_digest(described)
        self.capabilities, left_out = offer.capabilities(digest, offers(described))
        if left_out:
            log.warning("too much to announce", extra={"fields": {"names_left_out": left_out}})
        facts = offer.facts(stats, capabilities=digest, simulated=simulated)
        self._gauge.choose(facts.gpu, stats.devices[0].index if stats.devices else None)
        self._gauge.told(stats)
        self._learnt_ms = self._now_ms()
        if facts != self._facts:
            shown = {"url": self.client.url, "version": facts.comfyui_version, "card": facts.gpu.name}
            log.info("comfyui is up", extra={"fields": {**shown, "simulated": simulated}})
        self._facts = facts
        return facts

    # ---- calls

    def ask(self, call: Any) -> None:
        """Make this call when its turn comes."""
        self._calls.append(call)

    def drop(self, key: Key) -> None:
        """Make no call about this attempt any more."""
        self._calls = deque(call for call in self._calls if getattr(call, "key", None) != key)

    @property
    def busy(self) -> bool:
        return bool(self._calls)

    def call_next(self) -> None:
        """Make the oldest call, and tell the machine what came of it."""
        call = self._calls.popleft()
        match call:
            case Submit():
                self._submit(call)
            case Look(key, prompt_id):
                found = self._answer(partial(self.client.find, prompt_id))
                self._act(self._machine.looked(key, found, self._now_ms()))
            case Survey():
                self._act(self._machine.surveyed(self._answer(self.client.queue), self._now_ms()))
            case Dequeue(prompt_id):
                self._answer(partial(self.client.dequeue, prompt_id))
            case Interrupt(prompt_id):
                self._answer(partial(self.client.interrupt, prompt_id))
            case Free():
                self._answer(self.client.free)
            case _:
                raise TypeError(f"no call to ComfyUI: {call!r}")

    def _submit(self, call: Submit) -> None:
        job_id, attempt = call.key
        extra = {EXTRA_KEY: {"job_id": job_id, "attempt": attempt}}
        try:
            taken = self.client.submit(call.workflow, call.prompt_id, extra)
        except ComfyRejected as e:
            why = verdict.of_refusal(e)
            self._tell(call.key, lambda run, out: run.not_taken(out, why, self._now_ms()))
        except (ComfyUnreachable, ComfyLost) as e:
            log.warning("not sure that comfyui took it", extra={"fields": {"job": job_id, "fault": str(e)}})
            self._missed(e)
            self._tell(call.key, lambda run, _out: run.unsure(self._now_ms()))
        else:
            prompt_id, skipped = taken.prompt_id, taken.node_errors
            self._tell(call.key, lambda run, out: run.submitted(out, prompt_id, skipped, self._now_ms()))

    def _tell(self, key: Key, tell: Callable[[Run, list[Any]], None]) -> None:
        self._act(self._machine.answer(key, tell, self._now_ms()))

    def _answer(self, call: Callable[[], T]) -> T | None:
        """What ComfyUI answers; None when it does not."""
        try:
            answer = call()
        except ComfyUnreachable as e:
            log.debug("no answer", extra={"fields": {"fault": str(e)}})
            self._missed(e)
            return None
        self._answered()
        return answer

    def _answered(self) -> None:
        self._heard_ms = self._now_ms()
        if self._misses >= MISSES:
            log.info("comfyui answers again")
            self._act(self._machine.comfy_answers(True, self._now_ms()))
        self._misses = 0

    def _blame(self, error: ComfyError) -> None:
        self._fault = plain(str(error) if self.capabilities is not None else f"{error}; {MEND}", FAULT_CHARS)

    def _missed(self, error: ComfyError) -> None:
        self._misses += 1
        self._blame(error)
        if self._misses == MISSES and self.up:
            log.warning("comfyui does not answer", extra={"fields": {"url": self.client.url}})
        if self._misses >= MISSES:
            self._act(self._machine.comfy_answers(False, self._now_ms()))
