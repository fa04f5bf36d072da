"""The broker's door: answers libzmq's question, for each new connection, whether this key may use this socket (ZAP).

Owns the one inproc socket of ZAP in its context; whoever runs the loop polls it and calls `answer`. Never starts a
thread. `Allowed` is the list behind it, re-read when the file changes; a second thread takes an Allowed of its own.
"""

from __future__ import annotations

import logging
from pathlib import Path

import zmq
from zmq.utils import z85

from broker.protocol.errors import ConfigError
from broker.runtime.clock import now
from broker.runtime.keys import ROLES, Peer, read_allowed

_ZAP = "inproc://zeromq.zap.01"
#: Handshakes answered in one turn of the loop, so that a flood of them holds up nothing else.
_BATCH = 64
_QUIET_MS = 1_000

log = logging.getLogger(__name__)


class Allowed:
    """Who may connect, as the list in the key folder says now."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError when the list has a line that is none: at the start somebody is there to mend it."""
        self._path = folder / "allowed"
        self._seen = self._stamp()
        self._peers, complaints = read_allowed(self._path)
        if complaints:
            raise ConfigError(complaints[0])
        self._asked = frozenset(self._peers)

    def peer(self, key: str | None, socket: str) -> Peer | None:
        """Who has this public key, if it may use `socket` (clients, workers, events or files)."""
        self._refresh()
        found = self._peers.get(key) if key is not None else None
        return found if found is not None and socket in ROLES[found.role] else None

    def revoked(self) -> bool:
        """Whether a key has left the list since this was last asked: then connections must be made to prove
        themselves again (sockets.rebind). Costs one stat; ask every second or so."""
        before = self._asked
        self._refresh()
        self._asked = frozenset(self._peers)
        return not before <= self._asked

    def _stamp(self) -> tuple[int, ...]:
        try:
            facts = self._path.stat()
        except OSError:
            return ()
        return facts.st_mtime_ns, facts.st_size, facts.st_ino, facts.st_mode

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._peers, complaints = read_allowed(self._path)
        except (ConfigError, OSError) as e:
            self._peers, complaints = {}, [f"{e}: nobody is let in"]
        for complaint in complaints:
            log.error(complaint)


class Gate:
    """Lets in who is allowed. Make it before the sockets are bound: while there is none, nobody gets in."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Allowed) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ZAP)
        self._allowed = allowed
        self._refused = 0
        self._quiet_until_ms = 0

    def answer(self) -> None:
        """Answer the handshakes that wait; call it when `socket` is readable."""
        for _ in range(_BATCH):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._reply(frames))

    def close(self) -> None:
        self.socket.close()

    def _reply(self, frames: list[bytes]) -> list[bytes]:
        # ZAP 1.0 (RFC 27): version, request id, domain, address, routing id, mechanism, credentials.
        version, request, domain, address, _, mechanism, *credentials = frames
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and len(credentials) == 1 else None
        if self._allowed.peer(key, domain.decode("ascii", "replace")) is not None and key is not None:
            return [version, request, b"200", b"OK", key.encode(), b""]
        self._note(address.decode("ascii", "replace"), domain.decode("ascii", "replace"), key)
        return [version, request, b"400", b"this key may not use this socket", b"", b""]

    def _note(self, address: str, domain: str, key: str | None) -> None:
        """One line a second at most: strangers must not be able to fill the log."""
        self._refused += 1
        instant_ms = now().monotonic_ms
        if instant_ms >= self._quiet_until_ms:
            self._quiet_until_ms = instant_ms + _QUIET_MS
            facts = {"address": address, "socket": domain, "key": key, "refused_so_far": self._refused}
            log.warning("refused a connection", extra={"fields": facts})
