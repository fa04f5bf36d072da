"""The broker's loop: poll, drain, one turn, send. The only part of the broker besides files.py that touches sockets.

Owns the sockets clients, workers and events, and runs in one thread. Decides nothing: turn.py and the core do. A
StoreError passes through it and ends the process before anything more is acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import zmq

from broker.core.events import FromClient, FromWorker, Unreachable
from broker.core.hearing import ANNOUNCE_FIRST
from broker.core.rules import Now
from broker.core.step import Send
from broker.files import FileChannel
from broker.keeping import Keeping
from broker.protocol import events
from broker.protocol.codec import ADMIN_SENDS, WORKER_SENDS, decode, encode
from broker.protocol.errors import RemoteProtocolError, StoreError
from broker.protocol.ids import SESSION_ID
from broker.protocol.records import JobState
from broker.protocol.worker import Invalid, Refused
from broker.runtime import clock, sockets
from broker.runtime.gate import Allowed, Gate
from broker.runtime.keys import Identity
from broker.runtime.settings import Network
from broker.runtime.stop import Stop
from broker.searches import Searches
from broker.turn import Outbound, Turn

#: Messages taken from one socket in one turn: bounds the turn, and the size of a commit.
DRAIN: Final = 512
#: How often the key list is asked whether a key was taken off it.
REVOKED_MS: Final = 1_000
#: Refusals answered to one peer a minute; further ones are only counted.
INVALID_PER_MINUTE: Final = 10
#: What a peer is told whose key left the list while it was connected.
NOT_ANY_MORE: Final = "this key is not allowed any more"

TOPICS: Final[dict[type[Any], bytes]] = {
    events.JobChanged: events.TOPIC_JOB,
    events.JobGone: events.TOPIC_JOB,
    events.JobProgress: events.TOPIC_PROGRESS,
    events.JobPreview: events.TOPIC_PREVIEW,
    events.WorkerChanged: events.TOPIC_WORKER,
    events.WorkerGone: events.TOPIC_WORKER,
    events.StatsChanged: events.TOPIC_STATS,
    events.Outlook: events.TOPIC_STATS,
}

log = logging.getLogger(__name__)


def now() -> Now:
    both = clock.now()
    return Now(mono_ms=both.monotonic_ms, utc_ms=both.utc_ms)


class Server:
    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        network: Network,
        identity: Identity | None,
        allowed: Allowed | None,
        turn: Turn,
        *,
        keeping: Keeping | None = None,
        searches: Searches | None = None,
    ) -> None:
        """Binds the three sockets. Raises ConfigError when an address cannot be had."""
        self._turn = turn
        self._keeping = keeping
        self._searches = searches
        self._allowed = allowed
        #: Before the sockets: while there is no gate nobody gets in.
        self._gate = Gate(context, allowed) if allowed is not None else None
        self._workers = sockets.router(context, "workers", network, identity)
        self._clients = sockets.router(context, "clients", network, identity)
        self._events = sockets.publisher(context, network, identity)
        #: Until when the workers go unheard; 0: whatever they say ends the wait.
        self._hush_until_ms = 0
        self._unreachable: list[Unreachable] = []
        #: Topics with at least one subscriber.
        self._watched: set[bytes] = set()
        self._refusals: dict[tuple[str, int], int] = {}
        self._revoked_due_ms = 0
        #: Why workers were not let in, and in which minute the log said so last.
        self._complained: dict[str, int] = {}
        self._seen: dict[str, str] = {}

    def endpoints(self) -> dict[str, str]:
        """Where each socket listens, with the ports the kernel chose."""
        bound = {"clients": self._clients, "workers": self._workers, "events": self._events}
        return {name: sockets.endpoint_of(socket) for name, socket in bound.items()}

    def run(self, stop: Stop, files: FileChannel, others_alive: Callable[[], bool]) -> None:
        """Turn until asked to stop. Raises StoreError when the disk or a thread beside can no longer be trusted.

        files: a result may wait for what comes there.
        """
        others, everybody = zmq.Poller(), zmq.Poller()
        beside = (
            self._gate.socket if self._gate is not None else None,
            self._searches.fileno() if self._searches is not None else None,
        )
        for source in (self._clients, self._events, stop.fileno(), *beside):
            if source is not None:
                others.register(source, zmq.POLLIN)
                everybody.register(source, zmq.POLLIN)
        everybody.register(self._workers, zmq.POLLIN)
        while not stop.requested:
            for poller in (others, everybody):
                poller.register(files.fileno(), zmq.POLLIN if self._turn.wants_files else 0)
            ready = self._wait(others, everybody)
            if self._gate is not None and self._gate.socket in ready:
                self._gate.answer()
            if self._events in ready:
                self._note_watchers()
            if files.fileno() in ready:
                files.heed()
            self._take_turn(ready)
            if self._searches is not None and self._searches.fileno() in ready:
                for request, page in self._searches.take():
                    self._send(self._turn.found(request, page, now()))
            if not ready:
                self._turn.store.checkpoint()
            if self._keeping is not None:
                self._send(self._keeping.step(now()))
            if not others_alive():
                raise StoreError("a thread of the broker ended unexpectedly: the log above says why")
            self._drop_revoked()
        self._send(self._turn.end())

    def _wait(self, others: zmq.Poller, everybody: zmq.Poller) -> Mapping[Any, int]:
        """Where something waits, as soon as it does; nothing, when the time has come for a turn without."""
        at_ms = now().mono_ms
        sleep_ms, hush_ms = self._sleep_ms(at_ms), min(self._hush_until_ms - at_ms, self._turn.fleet.hush_ms())
        return dict(others.poll(min(sleep_ms, hush_ms)) if hush_ms > 0 else everybody.poll(sleep_ms))

    def _sleep_ms(self, mono_ms: int) -> int:
        sleep_ms = self._turn.sleep_ms(mono_ms)
        return sleep_ms if self._keeping is None else min(sleep_ms, self._keeping.sleep_ms(mono_ms))

    def close(self) -> None:
        for socket in (self._workers, self._clients, self._events):
            socket.close()
        if self._gate is not None:
            self._gate.close()

    # ---- in

    def _take_turn(self, ready: Mapping[Any, int]) -> None:
        """ready: where messages wait; asking the others costs more than it seems, as each answers with an exception.
        Workers that went unheard are asked when nobody else has anything."""
        lost, self._unreachable = self._unreachable, []
        heard, asked = [], []
        if self._workers in ready or (self._hush_until_ms and not ready):
            heard = self._drain(self._workers, "workers", WORKER_SENDS, FromWorker)
            self._hush_until_ms = now().mono_ms + self._turn.fleet.hush_ms() if heard else 0
        if self._clients in ready:
            asked = self._drain(
                self._clients, "clients", ADMIN_SENDS, lambda session, message, _: FromClient(session, message)
            )
        self._send(self._turn.take([*lost, *heard], asked, now()))

    def _drain(
        self, socket: zmq.Socket[bytes], name: str, allowed: frozenset[int], event: Callable[[str, Any, str], Any]
    ) -> list[Any]:
        found = []
        for _ in range(DRAIN):
            try:
                frames, key = self._receive(socket, name)
            except zmq.Again:
                break
            session = frames[0].decode("ascii", "replace")
            try:
                if SESSION_ID.fullmatch(session) is None:
                    raise RemoteProtocolError("INVALID", "the routing id is not a session id")
                if key is None:
                    self._turn_away(socket, frames[0], name)
                else:
                    found.append(event(session, decode(frames[1:], allowed), key))
            except RemoteProtocolError as e:
                self._refuse(socket, frames[0], name, e)
        return found

    def _receive(self, socket: zmq.Socket[bytes], name: str) -> tuple[list[bytes], str | None]:
        """One message, and the worker name its key is bound to: empty without CURVE, None when the key has left the
        list. Raises zmq.Again when none waits."""
        parts = sockets.receive(socket)
        frames = [part.bytes for part in parts]
        if self._allowed is None:
            return frames, ""
        peer = self._allowed.peer(sockets.key_of(parts[-1]), name)
        return frames, peer.name if peer is not None else None

    def _turn_away(self, socket: zmq.Socket[bytes], routing_id: bytes, name: str) -> None:
        """Answer a peer whose key is gone; a worker stops at that."""
        if socket is self._workers:
            self._send_to(socket, routing_id, Refused(why=NOT_ANY_MORE, retry=False))
        else:
            self._refuse(socket, routing_id, name, RemoteProtocolError("FORBIDDEN", NOT_ANY_MORE))

    def _refuse(self, socket: zmq.Socket[bytes], routing_id: bytes, name: str, why: RemoteProtocolError) -> None:
        """Count a message that breaks the contract, and say so to whoever sent it, a few times a minute."""
        self._turn.invalid += 1
        minute = now().mono_ms // 60_000
        key = (routing_id.hex(), minute)
        if key not in self._refusals and len(self._refusals) >= 1_000:
            self._refusals = {k: n for k, n in self._refusals.items() if k[1] == minute}
            if len(self._refusals) >= 1_000:
                return  # more strangers than that are not answered one by one
        self._refusals[key] = self._refusals.get(key, 0) + 1
        if self._refusals[key] > INVALID_PER_MINUTE:
            return
        told = {"socket": name, "peer": routing_id.hex(), "worker": self._named(routing_id), "why": str(why)}
        log.warning("refused a message", extra={"fields": told})
        self._send_to(socket, routing_id, Invalid(code=why.code, detail=why.detail[:500], count=self._turn.invalid))

    def _named(self, routing_id: bytes) -> str | None:
        """The worker whose session this is, so that an operator knows where to look."""
        known = self._turn.fleet.roster.by_session.get(routing_id.decode("ascii", "replace"))
        return known.name if known is not None else None

    # ---- out

    def _send(self, out: Outbound) -> None:
        for send in out.to_workers:
            self._deliver(send)
        for reply in out.to_clients:
            self._send_to(self._clients, reply.session.encode(), reply.message)
        for message in out.published:
            self._tell(message)
            topic = TOPICS[type(message)]
            if topic in self._watched:
                sockets.send(self._events, topic, *encode(message))
        for send in out.recorded:
            self._deliver(send)

    def _deliver(self, send: Send) -> None:
        if isinstance(send.message, Refused) and send.message.why != ANNOUNCE_FIRST:
            self._complain(send)
        if not self._send_to(self._workers, send.session.encode(), send.message):
            self._unreachable.append(Unreachable(send.session))

    def _send_to(self, socket: zmq.Socket[bytes], routing_id: bytes, message: Any) -> bool:
        """Whether the transport took it; that it arrived, only an answer shows."""
        try:
            sockets.send(socket, routing_id, *encode(message))
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    # ---- beside

    def _note_watchers(self) -> None:
        """Topics come and go as messages; while nobody watches any, nothing is encoded. Only ours are kept."""
        try:
            while True:
                said = self._events.recv(zmq.NOBLOCK)
                if said[1:] in TOPICS.values():
                    (self._watched.add if said[:1] == b"\x01" else self._watched.discard)(said[1:])
        except zmq.Again:
            return

    def _drop_revoked(self) -> None:
        if self._allowed is None or now().mono_ms < self._revoked_due_ms:
            return
        self._revoked_due_ms = now().mono_ms + REVOKED_MS
        if self._allowed.revoked():
            log.warning("a key was revoked: every connection must prove itself again")
            for socket in (self._workers, self._clients, self._events):
                sockets.rebind(socket)

    def _complain(self, refusal: Send) -> None:
        """Say that a worker is not let in, not how often: it asks again every few seconds, or is started again."""
        why, minute = refusal.message.why, now().mono_ms // 60_000
        if self._complained.get(why) != minute:
            self._complained = {said: at for said, at in self._complained.items() if at == minute}
            self._complained[why] = minute
            log.warning("a worker is not let in", extra={"fields": {"session": refusal.session, "why": why}})

    def _tell(self, message: Any) -> None:
        """A line in the log for what an operator would ask about: a worker's state, and a job that did not go well."""
        match message:
            case events.WorkerChanged(worker=seen) if self._seen.get(seen.worker) != seen.state.value:
                self._seen[seen.worker] = seen.state.value
                fields = {"worker": seen.worker, "state": seen.state.value, "card": seen.gpu.name}
                log.info("worker", extra={"fields": fields})
            case events.WorkerGone(worker=name):
                self._seen.pop(name, None)
            case events.JobChanged(job=job) if job.failure is not None and job.state in (
                JobState.QUEUED,
                JobState.FAILED,
            ):
                why = f"{job.failure.reason}: {job.failure.text}"
                told = {"job": job.job_id, "state": job.state.value, "attempt": job.attempt, "why": why[:500]}
                log.warning("job", extra={"fields": told})
