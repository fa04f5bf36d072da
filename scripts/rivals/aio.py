"""`python -m scripts.rivals.aio ENDPOINT`: aiohttp, sending to each WebSocket in turn as its examples do."""

from __future__ import annotations

import asyncio
import sys

import zmq
import zmq.asyncio
from aiohttp import web

watching: set[web.WebSocketResponse] = set()


async def serve(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    watching.add(socket)
    async for _ in socket:
        continue
    watching.discard(socket)
    return socket


async def main(endpoint: str) -> None:
    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024)
    await site.start()
    source = zmq.asyncio.Context().socket(zmq.SUB)
    source.rcvhwm = 100_000
    source.subscribe(b"aio")
    source.connect(endpoint)
    print(f"ready http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    while True:
        _, kind, data = await source.recv_multipart()
        text = data.decode() if kind == b"t" else ""
        for each in list(watching):
            await (each.send_str(text) if text else each.send_bytes(data))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
