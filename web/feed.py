"""Follows the broker's events into the hub; after a gap, a silence or a restart it asks for a snapshot.

Owns the SUB socket and runs in one greenlet. Events wait in the socket while a snapshot is asked for, so none between
the two is missed. Never decides what a browser sees: the hub does.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any, Final

import gevent
import zmq
from gevent.socket import wait

from broker.protocol import client, codec, events
from broker.protocol.errors import RemoteProtocolError
from broker.protocol.events import JobPreview
from web.hub import Changes, Event, Hub
from web.link import BrokerRefused, BrokerSilent, Link

log = logging.getLogger(__name__)

TOPICS: Final = (
    events.TOPIC_JOB,
    events.TOPIC_PROGRESS,
    events.TOPIC_PREVIEW,
    events.TOPIC_WORKER,
    events.TOPIC_STATS,
)
#: Ended jobs asked for with a snapshot; a page's history beyond them is read by pages.
RECENT: Final = 200
#: Events taken over in one go; what they mean for a browser leaves in one send.
MAX_BATCH: Final = 500
#: Without an event for so long, ask whether the broker lives and nothing was missed. Short at first: a subscription
#: takes effect a moment after the snapshot, and what was published in between is noticed by this alone.
FIRST_QUIET_S: Final = 0.5
LONGEST_QUIET_S: Final = 5.0
#: So many snapshots in a row that know of events which never came: the subscription is dead.
DEAF_SNAPSHOTS: Final = 3
#: Between two tries when the broker is away, and between two snapshots when events are lost in a row.
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0


class Feed:
    def __init__(self, socket: Any, link: Link, hub: Hub, tell: Callable[[Changes], None]) -> None:
        """socket: a SUB on TOPICS, of zmq itself; `tell` carries what changed to whoever watches."""
        self._socket = socket
        #: Tells of a change once. What zmq.green does beside that costs as much as a send to ten browsers.
        self._arrival = gevent.get_hub().loop.io(socket.fd, 1)
        self._link = link
        self._hub = hub
        self._tell = tell
        #: The stream and serial of the last event taken over; None before the first snapshot.
        self._seen: tuple[str, int] | None = None
        self._quiet_s = FIRST_QUIET_S
        self._pause_s = FIRST_PAUSE_S
        #: Snapshots in a row that told of changes while the socket was silent.
        self._deaf = 0

    def run(self) -> None:
        while True:
            try:
                self._resync()
            except (BrokerSilent, BrokerRefused) as e:
                log.warning("no snapshot from the broker", extra={"fields": {"why": str(e)}})
                self._tell(self._hub.lost())
                self._pause()
                continue
            if self._follow():
                self._quiet_s = min(2 * self._quiet_s, LONGEST_QUIET_S)
                self._pause_s = FIRST_PAUSE_S
            else:
                self._pause()
                self._discard()

    def _resync(self) -> None:
        """Compare with the broker, and start afresh if anything was missed."""
        reply = self._link.ask(client.SnapshotReply, client.Snapshot, recent=RECENT)
        at = (reply.stream, reply.serial)
        if at == self._seen:
            self._tell(self._hub.found())
            return
        self._deaf += 1
        if self._deaf >= DEAF_SNAPSHOTS:
            self._redial()
        self._seen = at
        self._quiet_s = FIRST_QUIET_S
        self._tell(self._hub.reset(reply))

    def _follow(self) -> bool:
        """Take events over until there are none for a while (True) or one was missed (False)."""
        while True:
            batch, whole = self._batch()
            if batch:
                self._tell(self._hub.apply(batch))
            if not whole:
                return False
            if not batch:
                return True

    def _batch(self) -> tuple[list[Event], bool]:
        """The events that have arrived, at least one unless none comes, and whether none was missed among them."""
        batch: list[Event] = []
        frames = self._first_frames()
        while frames is not None:
            try:
                event = codec.decode(frames[1:], codec.EVENTS)
            except RemoteProtocolError as e:
                log.error("cannot read an event", extra={"fields": {"why": str(e)}})
                return batch, False
            if isinstance(event, JobPreview):
                batch.append(event)
            elif self._seen is None or event.stream != self._seen[0] or event.serial > self._seen[1] + 1:
                return batch, False
            elif event.serial == self._seen[1] + 1:
                self._seen = (event.stream, event.serial)
                batch.append(event)
            frames = self._waiting_frames() if len(batch) < MAX_BATCH else None
        return batch, True

    def _first_frames(self) -> list[bytes] | None:
        """The next event, or None when none comes for a while."""
        try:
            with gevent.Timeout(self._quiet_s, _Quiet()):
                if (found := self._waiting_frames()) is not None:
                    gevent.sleep(0)  # however many there are, everybody else has a turn
                while found is None:
                    wait(self._arrival)
                    found = self._waiting_frames()
        except _Quiet:
            return None
        self._deaf = 0  # also for what is dropped as too old or too new: the subscription works
        return found

    def _waiting_frames(self) -> list[bytes] | None:
        try:
            found: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return found

    def _discard(self) -> None:
        """Throw away events from before the next snapshot: the socket may have dropped some after them."""
        while self._waiting_frames() is not None:
            continue

    def _redial(self) -> None:
        """Dial again: libzmq gives a connection up for good when the broker refused its key, also if it is let in
        later."""
        self._deaf = 0
        endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        log.warning("the broker publishes and nothing arrives: dialling its events again")
        with contextlib.suppress(zmq.ZMQError):  # it may know itself that there is no connection
            self._socket.disconnect(endpoint)
        self._socket.connect(endpoint)

    def _pause(self) -> None:
        gevent.sleep(self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


class _Quiet(Exception):
    """No event came in time."""
