"""A TCP proxy that spoils what goes through it: late, one-way frozen, reset, or with a byte turned. For chaos.

Runs its own event loop in a thread; each link is one listening port before one address. What is done to a link is set
from outside at any time and holds for connections that are open and for those to come.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from dataclasses import dataclass, field

CHUNK = 16_384


@dataclass
class Link:
    """One port, and what is wrong with it."""

    host: str
    port: int
    #: Seconds that every piece is late, up to twice that.
    late_s: float = 0.0
    #: Directions in which nothing passes: "up" to the broker, "down" from it.
    frozen: set[str] = field(default_factory=set)
    #: The share of pieces in which one byte is turned.
    flips: float = 0.0
    listens: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


class Proxy:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def link(self, endpoint: str) -> Link:
        """A way to tcp://host:port. `listens` is the port before it."""
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        made = Link(host, int(port))
        asyncio.run_coroutine_threadsafe(self._listen(made), self._loop).result(10)
        return made

    def reset(self, link: Link) -> None:
        """Cut every open connection, as by RST."""

        def cut() -> None:
            for writer in list(link.writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(cut)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # for transports to let go of their sockets

    async def _listen(self, link: Link) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there, back = await asyncio.open_connection(link.host, link.port)
            except OSError:
                writer.transport.abort()
                return
            link.writers |= {writer, back}
            try:
                await asyncio.gather(self._pass(link, "up", reader, back), self._pass(link, "down", there, writer))
            finally:
                link.writers -= {writer, back}
                writer.transport.abort()
                back.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._servers.append(server)
        link.listens = server.sockets[0].getsockname()[1]

    async def _pass(self, link: Link, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(CHUNK):
                if link.late_s:
                    await asyncio.sleep(link.late_s * (1 + self._rng.random()))
                while way in link.frozen:
                    await asyncio.sleep(0.05)
                if self._rng.random() < link.flips:
                    data = self._turned(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def _turned(self, data: bytes) -> bytes:
        place = self._rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ (1 << self._rng.randrange(8))]) + data[place + 1 :]
