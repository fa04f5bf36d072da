"""One web process, put together: sockets to the broker, the hub, the greenlets around it, and the server in front.

Owns everything it makes, and ends it in `stop`. A greenlet that dies unexpectedly ends the process: whoever supervises
it starts a fresh one, which is better than a page that is silently out of date.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import gevent
import zmq
import zmq.green
from gevent import monkey

from broker.protocol.errors import ConfigError
from broker.runtime import sockets
from broker.runtime.clock import now
from broker.runtime.config import Config
from broker.runtime.keys import Identity
from broker.runtime.values import is_loopback
from web import history
from web.abilities import Abilities
from web.api.site import Site
from web.app import application
from web.auth import Gate, has_cookie, is_same_origin
from web.feed import TOPICS, Feed
from web.files import Files
from web.grants import Grants
from web.hub import Changes, Hub
from web.library import Library
from web.link import Link
from web.watch import JobWatch
from web.ws import Sockets, SocketServer

log = logging.getLogger(__name__)

#: Connections besides the WebSockets.
SPARE_CONNECTIONS: Final = 500
#: How long requests under way may take to end, and browsers to say goodbye.
STOP_MS: Final = 3_000


class Web:
    """Listens once made; serves after `start`."""

    def __init__(self, settings: Config, identity: Identity | None) -> None:
        """Raises ConfigError when the address, the token file or a key is unusable."""
        if not monkey.is_module_patched("socket"):
            raise ConfigError(
                "the web process runs as `python -m web`: without gevent's patches one request blocks all"
            )
        web, network = settings.web, settings.network
        gate = Gate(web.token_file)
        if gate.open and not is_loopback(web.host):
            raise settings.error("web.host", "not on loopback, so it needs [web] token_file")
        templates = Library(web.templates)
        self._host = web.host
        listener = _listener(settings)
        self._context: Any = zmq.green.Context()
        self.link = Link(self._context, network, identity, reply_ms=web.reply_ms)
        credit_bytes = settings.files.credit_bytes
        self.files = Files(self._context, network, identity, reply_ms=web.reply_ms, credit_bytes=credit_bytes)
        self._events: Any = sockets.subscriber(zmq.Context.shadow(self._context), network, identity, TOPICS)
        self.hub = Hub()
        self.watch = JobWatch()
        self.sockets = Sockets(
            self.hub,
            identify=gate.identify,
            is_same_origin=lambda environ: is_same_origin(environ, must_say=has_cookie(environ)),
            max_sockets=web.max_sockets,
        )
        self.abilities = Abilities(self.hub, self.files)
        site = Site(
            settings=web,
            gate=gate,
            link=self.link,
            hub=self.hub,
            files=self.files,
            abilities=self.abilities,
            templates=templates,
            watch=self.watch,
            grants=Grants(),
        )
        self.server = SocketServer(
            self.sockets,
            listener,
            application(site),
            is_our_host=host_check(web.host, web.allowed_hosts),
            max_connections=web.max_sockets + SPARE_CONNECTIONS,
        )
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = "localhost" if self._host in ("0.0.0.0", "::") else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server.port}"

    def start(self, failed: Callable[[], None]) -> None:
        """Accept, follow the broker, look after the browsers. `failed` is called when one of these ends by itself."""
        self.server.start()
        feed = Feed(self._events, self.link, self.hub, self._tell)
        for work in (feed.run, self.sockets.watch, self._sample):
            greenlet: gevent.Greenlet[..., None] = gevent.spawn(work)
            greenlet.link_exception(lambda ended: self._broke(ended, failed))
            self._greenlets.append(greenlet)

    def stop(self) -> None:
        """Accept nothing more, tell the browsers, let requests end, close."""
        self.server.close()
        self.sockets.close_all()
        self.watch.end()
        until_ms = now().monotonic_ms + STOP_MS
        while (len(self.sockets) or self.server.serving) and now().monotonic_ms < until_ms:
            gevent.sleep(0.02)
        gevent.killall(self._greenlets)
        self.link.close()
        self._events.close()
        self._context.destroy(linger=0)

    def _sample(self) -> None:
        while True:
            self.hub.sample(now().utc_ms)
            gevent.sleep(history.STEP_MS / 1_000)

    def _tell(self, changes: Changes) -> None:
        self.sockets.deliver(changes)
        self.watch.wake(changes.jobs)
        for result in changes.results:
            gevent.spawn(self.files.expect, result.sha256, result.size_bytes)

    def _broke(self, ended: Any, failed: Callable[[], None]) -> None:
        log.error("a part of this process failed", exc_info=ended.exc_info)
        failed()


def host_check(host: str, allowed: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a name in a Host header is ours: the address we listen on, loopback's names, and what is configured."""
    names = {"localhost", "127.0.0.1", "::1", host.lower(), *allowed} - {"0.0.0.0", "::"}
    return lambda name: name in names


def _listener(settings: Config) -> socket.socket:
    """The socket that browsers connect to. Raises ConfigError when the address cannot be had."""
    host, port = settings.web.host, settings.web.port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1_024)
    except OSError as e:
        listener.close()
        raise settings.error("web.port", f"cannot listen on {host}:{port}: {e.strerror}") from e
    return listener
