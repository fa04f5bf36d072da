"""The files socket, served by a thread of its own that shares no state with the core.

The thread owns the socket from `start` on and closes it. Syncing and hashing a whole file is done by a few helpers, so
that nobody's transfer waits for another's disk; so is settling what stands in the store's journal. If the thread dies,
`alive` says so and the broker must stop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, Final

import zmq

from broker.protocol.codec import FILES_CLIENT_SENDS, decode, encode
from broker.protocol.errors import RemoteProtocolError
from broker.protocol.files import AT_ONCE_BYTES, FileRefused
from broker.protocol.worker import Invalid
from broker.runtime import clock, sockets
from broker.runtime.gate import Allowed
from broker.runtime.settings import Files
from broker.store.files import FileProblem, FileStore, Partial
from broker.transfers import Reply, Transfers

#: Messages taken, and chunks sent, before the other direction has its turn.
DRAIN: Final = 64
#: How long to wait when nothing can be sent: for nobody, and for a peer whose queue is full.
IDLE_MS: Final = 1_000
FULL_MS: Final = 20
SWEEP_S: Final = 3_600.0
#: The log says that the disk refuses files so often at most.
COMPLAIN_S: Final = 60.0
FINISHERS: Final = 4

log = logging.getLogger(__name__)


class FileChannel:
    def __init__(
        self, socket: zmq.Socket[bytes], store: FileStore, settings: Files, allowed: Allowed | None = None
    ) -> None:
        """socket: a bound ROUTER with ROUTER_MANDATORY, nobody else's from `start` on.

        allowed: this thread's own list of keys; when one leaves it, every connection must prove itself again.
        """
        self.endpoint = sockets.endpoint_of(socket)
        #: Messages that broke the contract. Any thread may read it.
        self.invalid = 0
        self._socket = socket
        self._store = store
        self._allowed = allowed
        self._transfers = Transfers(store, chunk_bytes=settings.chunk_bytes, credit_bytes=settings.credit_bytes)
        #: What the helpers have done with a whole file.
        self._finished: SimpleQueue[tuple[Partial, Future[None]]] = SimpleQueue()
        self._settling: Future[None] | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stored = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        #: When the log last said that the disk refuses files, by the code of refusal.
        self._complained_s: dict[str, float] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="files")

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread serves; false after an error that it could not answer (its log tells which)."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Finish the files that are whole, keep the others for another try, close the socket. Call it once."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        os.close(self._stored)

    def fileno(self) -> int:
        """Readable once a file has become durable, until `heed`."""
        return self._stored

    def heed(self) -> None:
        os.eventfd_read(self._stored)

    # ---- everything below runs in the thread

    def _serve(self) -> None:
        helpers = ThreadPoolExecutor(FINISHERS, thread_name_prefix="files-finish")
        try:
            self._loop(helpers)
        finally:
            helpers.shutdown()
            self._transfers.close()
            self._socket.close(linger=0)
        with contextlib.suppress(FileProblem):  # it is as durable where it is
            self._store.settle()

    def _loop(self, helpers: ThreadPoolExecutor) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        swept_s = tidied_s = _now_s()
        wait_ms = 0
        while not self._stopping:
            ready = dict(poller.poll(wait_ms))
            if self._wake in ready:
                os.eventfd_read(self._wake)
                self._tell_finished()
            if self._socket in ready:
                self._receive()
            for partial in self._transfers.take_whole():
                # Two changes of thread take as long as a small file; with others about, none waits for another's disk.
                if partial.size_bytes <= AT_ONCE_BYTES and self._transfers.idle:
                    self._finish(partial)
                else:
                    helpers.submit(partial.finish).add_done_callback(self._finisher(partial))
            wait_ms = self._send_chunks()
            now_s = _now_s()
            if self._store.crowded:
                self._settle(helpers)
            if now_s - tidied_s > IDLE_MS / 1_000:
                tidied_s = now_s
                self._settle(helpers)
                self._transfers.expire(now_s)
                if self._allowed is not None and self._allowed.revoked():
                    sockets.rebind(self._socket)
            if now_s - swept_s > SWEEP_S:
                swept_s = now_s
                self._store.sweep()

    def _receive(self) -> None:
        for _ in range(DRAIN):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                replies = self._transfers.handle(peer, decode(frames, FILES_CLIENT_SENDS), _now_s())
            except RemoteProtocolError as e:
                self.invalid += 1
                replies = [(peer, Invalid(code=e.code, detail=e.detail[:500], count=self.invalid))]
            if self._transfers.kept:
                self._transfers.kept = False
                os.eventfd_write(self._stored, 1)
            self._reply(replies)

    def _settle(self, helpers: ThreadPoolExecutor) -> None:
        """Have what stands in the journal put in its place, later than whoever sent it waits for."""
        if self._settling is not None and self._settling.done():
            problem = self._settling.exception()
            self._settling = None
            if isinstance(problem, FileProblem):
                self._complain(problem.code, str(problem))
            elif problem is not None:
                raise problem
        if self._settling is None and self._store.unsettled:
            self._settling = helpers.submit(self._store.settle)

    def _finish(self, partial: Partial) -> None:
        problem = None
        try:
            partial.finish()
        except FileProblem as e:
            problem = e
        self._told(partial, problem)

    def _finisher(self, partial: Partial) -> Callable[[Future[None]], None]:
        def done(future: Future[None]) -> None:
            self._finished.put((partial, future))
            os.eventfd_write(self._wake, 1)

        return done

    def _tell_finished(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                partial, future = self._finished.get_nowait()
                problem = future.exception()
                if problem is not None and not isinstance(problem, FileProblem):
                    raise problem
                self._told(partial, problem)

    def _told(self, partial: Partial, problem: FileProblem | None) -> None:
        if problem is None:
            os.eventfd_write(self._stored, 1)
        self._reply(self._transfers.finished(partial, problem))

    def _send_chunks(self) -> int:
        """Send the next chunk of each download whose turn it is; returns how long to wait before the next round."""
        full: set[bytes] = set()
        turns = self._transfers.turns(DRAIN)
        for key in turns:
            peer = key[0]
            if peer not in full:
                message = self._transfers.chunk_for(key)
                if self._send(peer, message):
                    self._transfers.sent(key, message, _now_s())
                    continue
                full.add(peer)
            self._transfers.passed(key)
        if not turns:
            return IDLE_MS
        return FULL_MS if all(key[0] in full for key in turns) else 0

    def _reply(self, replies: list[Reply]) -> None:
        for peer, message in replies:
            if isinstance(message, FileRefused) and message.code in ("full", "damaged"):
                self._complain(message.code, message.text)
            self._send(peer, message)  # one that is not taken is made up for: its peer asks again after a silence

    def _complain(self, code: str, why: str) -> None:
        """Say that the disk refuses files, not how often: peers ask again every few seconds, for each file."""
        now_s = _now_s()
        if now_s - self._complained_s.get(code, -COMPLAIN_S) >= COMPLAIN_S:
            self._complained_s[code] = now_s
            log.error("the disk refuses files", extra={"fields": {"code": code, "why": why}})

    def _send(self, peer: bytes, message: Any) -> bool:
        """Whether the transport took it. A peer that is gone is forgotten."""
        try:
            sockets.send(self._socket, peer, *encode(message))
        except zmq.Again:
            return False
        except zmq.ZMQError as e:
            if e.errno != zmq.EHOSTUNREACH:
                raise
            self._transfers.drop_peer(peer)
            return False
        return True


def _now_s() -> float:
    return clock.now().monotonic_ms / 1_000
