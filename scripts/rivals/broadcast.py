"""`python -m scripts.rivals.broadcast ENDPOINT`: websockets, with the `broadcast` of its documentation."""

from __future__ import annotations

import asyncio
import sys

import zmq
import zmq.asyncio
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.asyncio.server import serve as listen

watching: set[ServerConnection] = set()


async def serve(connection: ServerConnection) -> None:
    watching.add(connection)
    await connection.wait_closed()
    watching.discard(connection)


async def main(endpoint: str) -> None:
    server = await listen(serve, "127.0.0.1", 0, backlog=1_024)
    source = zmq.asyncio.Context().socket(zmq.SUB)
    source.rcvhwm = 100_000
    source.subscribe(b"broadcast")
    source.connect(endpoint)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    while True:
        _, kind, data = await source.recv_multipart()
        broadcast(watching, data.decode() if kind == b"t" else data)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
