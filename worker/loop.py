"""The worker's one loop: one thread, one poller over the broker, the file channel, ComfyUI's socket and the signals.

A turn takes whatever has arrived, lets time pass in the core, and then does things that may take long: calls to
ComfyUI and steps of errands, until they have taken a few milliseconds. So whatever hangs, the next heartbeat is at
most one call away; and a loop that does not turn falls silent, as it should. Owns the sockets to the broker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import zmq

from broker.protocol.codec import BROKER_TO_WORKER, decode, encode
from broker.protocol.errors import RemoteProtocolError
from broker.protocol.records import Reason
from broker.protocol.worker import Complete, Fail, Heartbeat, Invalid, Refused, Welcome
from broker.runtime import clock, sockets
from broker.runtime.stop import Stop as Signals
from comfyui.client import ComfyClient
from worker.agenda import Agenda
from worker.comfy import Comfy
from worker.core import verdict
from worker.core.asks import (
    Deliver,
    Drop,
    Key,
    Listen,
    NewSocket,
    Pulse,
    RestartComfy,
    Send,
    Stage,
    Stop,
    StoreCapabilities,
)
from worker.core.machine import Machine
from worker.core.outbox import Outbox
from worker.core.patience import earliest
from worker.core.run import Run
from worker.courier import Courier
from worker.errands import Errand, ErrandFailed, Porter
from worker.gpu import Gauge
from worker.restart import restarting

#: Messages of the broker taken in one turn.
AT_ONCE: Final = 100
#: The longest sleep.
TURN_MS: Final = 1_000
#: How long a turn goes on to the next thing: most are quick, and a look around between any two would double their time.
WORK_MS: Final = 5

log = logging.getLogger(__name__)


now_ms = clock.monotonic_ms


class Loop:
    def __init__(
        self,
        machine: Machine,
        client: ComfyClient,
        courier: Courier,
        gauge: Gauge,
        *,
        dial: Callable[[], zmq.Socket[bytes]],
        serves: Callable[[], None],
        max_file_bytes: int,
        keyed: bool = False,
        restart: tuple[str, ...] = (),
    ) -> None:
        """dial: a new socket to the broker. serves: called once, when the broker first knows this worker with its
        ComfyUI.

        keyed: the broker asks for a key. restart: the command that starts ComfyUI anew.
        """
        self._machine = machine
        self._courier = courier
        self._gauge = gauge
        self._comfy = Comfy(client, machine, gauge, now_ms=now_ms, act=self._act)
        self._porter = Porter(client, courier, max_file_bytes=max_file_bytes, now_ms=now_ms, breathe=self._breathe)
        self._agenda = Agenda()
        self._agenda.add("comfyui", self._comfy.watch())
        self._restart = restart
        self._keyed = keyed
        self._dial = dial
        self._socket = dial()
        self._outbox = Outbox()
        self._serves: Callable[[], None] | None = serves
        self._signals: Signals | None = None
        self._stop: Stop | None = None
        #: What the poller watches; made anew when that changes.
        self._watched: tuple[Any, ...] = ()
        self._poller = zmq.Poller()
        #: The last thing done was a call to ComfyUI.
        self._called = False

    def run(self, signals: Signals) -> Stop:
        """Turn until the worker is done; answers why it is. The first signal drains it."""
        self._signals = signals
        try:
            while self._stop is None:
                self._turn(signals)
        finally:
            self._agenda.close()
            self._comfy.client.close()
            self._courier.close()
            self._socket.close()
        return self._stop

    # ---- a turn

    def _turn(self, signals: Signals) -> None:
        self._poll(signals)
        self._breathe()
        until_ms = now_ms() + WORK_MS
        while self._stop is None and self._work() and now_ms() < until_ms:
            continue

    def _work(self) -> bool:
        """Do one thing that may take long; answers whether there was one."""
        # In turns, so that neither a long output nor a ComfyUI that answers nothing keeps the other waiting.
        if (self._called or not self._comfy.busy) and self._agenda.step(now_ms()):
            self._called = False
            return True
        if self._comfy.busy:
            self._called = True
            self._comfy.call_next()
            return True
        return False

    def _poll(self, signals: Signals) -> None:
        """Sleep until something arrives or is due."""
        due_ms = earliest(
            self._machine.deadline_ms(),
            self._courier.deadline_ms(),
            self._agenda.deadline_ms(),
            self._outbox.deadline_ms(),
        )
        wait_ms = TURN_MS if due_ms is None else min(TURN_MS, max(0, due_ms - now_ms()))
        watched = (self._socket, self._outbox.blocked, self._courier.socket, self._comfy.fileno())
        if watched != self._watched:
            self._watched, self._poller = watched, self._new_poller(signals)
        self._poller.poll(0 if self._comfy.busy or self._comfy.waiting else wait_ms)

    def _new_poller(self, signals: Signals) -> zmq.Poller:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if self._outbox.blocked else 0))
        poller.register(self._courier.socket, zmq.POLLIN)
        poller.register(signals.fileno(), zmq.POLLIN)
        if self._comfy.up:
            poller.register(self._comfy.fileno(), zmq.POLLIN)
        return poller

    def _breathe(self) -> None:
        """All that must not wait: read everything, let time pass, say what is to be said."""
        if self._comfy.up and not self._comfy.read():
            self._agenda.hurry("comfyui")
            self._porter.anew()
        self._hear()
        if self._courier.receive(now_ms()):
            self._agenda.news()
        self._courier.tick(now_ms())
        if self._signals is not None and self._signals.requested:
            self._signals.settle()
            self._act(self._machine.drain("stopped by a signal", now_ms()))
        self._act(self._machine.tick(now_ms()))
        self._flush()

    # ---- the broker

    def _hear(self) -> None:
        for _ in range(AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = decode(frames, BROKER_TO_WORKER)
            except RemoteProtocolError as e:
                log.warning("the broker sent what is no message", extra={"fields": {"fault": str(e)}})
                continue
            if isinstance(message, Invalid):
                complaint = {"code": message.code, "detail": message.detail}
                log.error("the broker did not understand this worker", extra={"fields": complaint})
            if isinstance(message, Refused) and message.retry:
                log.warning("the broker does not let this worker in yet", extra={"fields": {"why": message.why}})
            if isinstance(message, Welcome):
                log.info(
                    "welcomed by the broker",
                    extra={"fields": {"broker": message.broker, "resumes": len(message.resume)}},
                )
            self._act(self._machine.received(message, now_ms()))
            if self._machine.link.serves and self._serves is not None:
                self._serves()
                self._serves = None

    def _say(self, message: Any, *, can_wait: bool = False) -> None:
        if isinstance(message, Complete):
            log.info("attempt succeeded", extra={"fields": {"job": message.job_id, "attempt": message.attempt}})
        if isinstance(message, Fail):
            why = {"reason": message.failure.reason.value, "text": message.failure.text}
            log.info("attempt failed", extra={"fields": {"job": message.job_id, "attempt": message.attempt, **why}})
            if message.failure.reason is Reason.POISONED and not self._restart:
                log.error("the card fails everything: start comfyui anew; no work is taken until then")
        self._outbox.add(message, now_ms(), can_wait=can_wait)
        self._flush()

    def _flush(self) -> None:
        while (message := self._outbox.first(now_ms())) is not None:
            try:
                sockets.send(self._socket, *encode(message))
            except zmq.Again:
                return  # no broker is connected
            self._outbox.sent()

    def _redial(self) -> None:
        # A broker says nothing to a key that it does not know, or knows no more.
        doubt = ", or refuses this worker's key (scripts/keys list on its host tells)" if self._keyed else ""
        log.warning(f"the broker does not answer{doubt}: dialling anew")
        self._socket.close(linger=0)
        self._outbox.clear()
        self._socket = self._dial()

    # ---- what the core asks

    def _act(self, asks: list[Any]) -> None:
        for ask in asks:
            match ask:
                case Send(message, can_wait):
                    self._say(message, can_wait=can_wait)
                case Pulse(held):
                    stats = self._gauge.read(
                        now_ms(), comfy_queue=self._comfy.queue_length, comfy_fault=self._comfy.fault
                    )
                    self._say(Heartbeat(stats=stats, held=held))
                case NewSocket():
                    self._redial()
                case Stop():
                    self._stop = ask
                case Listen(client_id):
                    self._comfy.listen(client_id)
                    self._agenda.hurry("comfyui")
                case StoreCapabilities():
                    # Asked for at every beat until it is done.
                    if "capabilities" not in self._agenda:
                        self._agenda.add("capabilities", self._offer())
                case RestartComfy(why):
                    # A command that still runs is not run beside itself.
                    if "restart" not in self._agenda:
                        self._agenda.add("restart", restarting(self._restart, why))
                case Stage(key):
                    self._agenda.add(key, self._stage(ask))
                case Deliver(key):
                    self._agenda.add(key, self._deliver(ask))
                case Drop(key):
                    self._agenda.drop(key)
                    self._comfy.drop(key)
                case _:
                    self._comfy.ask(ask)

    # ---- errands

    def _offer(self) -> Errand:
        capabilities, document = self._comfy.capabilities, self._comfy.document
        if capabilities is None:
            return  # asked for before ComfyUI has told them
        try:
            yield from self._porter.store(document)
        except ErrandFailed as e:
            log.error("the capability document is not stored", extra={"fields": {"fault": str(e)}})
        self._say(capabilities)

    def _stage(self, ask: Stage) -> Errand:
        def moving() -> None:
            self._tell(ask.key, lambda run, _out: run.moving(now_ms()))

        try:
            names = yield from self._porter.stage(ask.files, moving)
        except ErrandFailed as e:
            why = verdict.failure(e.reason, str(e))
        except OSError as e:
            why = verdict.failure(Reason.NOT_ACCEPTED, f"the worker cannot keep the job's files: {e.strerror}")
        else:
            self._tell(ask.key, lambda run, out: run.inputs_staged(out, names, now_ms()))
            return
        self._tell(ask.key, lambda run, out: run.not_taken(out, why, now_ms()))

    def _deliver(self, ask: Deliver) -> Errand:
        try:
            outputs = yield from self._porter.deliver(ask.sources, surely=ask.surely)
        except ErrandFailed as e:
            fault = str(e)
        except OSError as e:
            fault = f"the worker cannot keep the outputs until they are stored: {e.strerror}"
        else:
            self._tell(ask.key, lambda run, out: run.delivered(out, outputs, now_ms()))
            return
        self._tell(ask.key, lambda run, out: run.delivery_failed(out, fault, now_ms()))

    def _tell(self, key: Key, tell: Callable[[Run, list[Any]], None]) -> None:
        self._act(self._machine.answer(key, tell, now_ms()))
