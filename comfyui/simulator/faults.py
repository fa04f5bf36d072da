"""Faults that happen on the way between a client and a simulator, and the routes that order faults.

What is done to a prompt or a file is done elsewhere (executor.py, nodes.py); what may be ordered is in mischief.py. The
routes under /simulator are the simulator's own, the real server has none of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from comfyui.simulator.mischief import BadMischief, Mischief
from comfyui.simulator.parts import Simulator

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"


def faulty(mischief: Mischief) -> Any:
    """The middleware that spoils answers. A fault on a route hits every path that begins with it, /api or not."""

    @web.middleware
    async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path.removeprefix("/api")
        if path.startswith("/simulator"):
            return await handler(request)

        def strikes(kind: str) -> dict[str, Any] | None:
            routes = (trouble["route"] for trouble in mischief.waiting() if trouble["kind"] == kind)
            route = next((route for route in routes if path.startswith(route)), None)
            return None if route is None else mischief.strike(kind, route=route)

        if (slow := strikes("slow")) is not None:
            await asyncio.sleep(slow["seconds"])
        if strikes("http-500") is not None:
            return web.Response(status=500, text=TROUBLE)
        response = await handler(request)
        if strikes("drop-reply") is not None and request.transport is not None:
            request.transport.abort()
        if strikes("not-json") is not None:
            return web.Response(text="<html><body>It works!</body></html>", content_type="text/html")
        if strikes("cut") is not None:
            return await _cut(request, response)
        if path == "/prompt" and request.method == "POST" and mischief.strike("no-prompt-id") is not None:
            return web.json_response({"node_errors": {}})
        return response

    return spoil


async def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Half of the answer, with the length of the whole announced; then the connection ends."""
    body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    if "file" in request:  # /view leaves it here when it answers with a file
        body = request["file"].read_bytes()
    partial = web.StreamResponse(status=response.status, headers=response.headers)
    partial.content_length = len(body)
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.abort()
    return partial


def fault_routes(sim: Simulator, refuse: Callable[[float], Awaitable[None]]) -> web.RouteTableDef:
    """How faults are ordered, and what the simulator says of itself."""
    routes = web.RouteTableDef()
    #: Faults that last a while; kept here so that they are not collected.
    under_way: set[asyncio.Task[None]] = set()

    @routes.get("/simulator")
    async def state(request: web.Request) -> web.Response:
        rig = sim.rig
        facts: dict[str, Any] = {"version": rig.release.text, "card": rig.pace.card.key, "speed": str(rig.pace.speed)}
        facts |= {"resident": rig.memory.resident, "silent": sim.sockets.silent, "mischief": rig.mischief.waiting()}
        return web.json_response(facts)

    @routes.post("/simulator/mischief")
    async def order(request: web.Request) -> web.Response:
        try:
            trouble = sim.rig.mischief.order(await request.json())
        except BadMischief as e:
            return web.json_response({"error": str(e)}, status=400)
        sim.rig.journal.note("ordered", kind=trouble.kind, times=trouble.times, **trouble.options)
        if trouble.kind in ("drop", "refuse", "silent"):
            sim.rig.mischief.strike(trouble.kind)
            task = asyncio.create_task(_at_once(sim, trouble.kind, trouble.options, refuse))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        return web.json_response({"mischief": sim.rig.mischief.waiting()})

    @routes.delete("/simulator/mischief")
    async def lift(request: web.Request) -> web.Response:
        sim.rig.mischief.lift()
        sim.sockets.silent = False
        return web.json_response({"mischief": []})

    return routes


async def _at_once(
    sim: Simulator, kind: str, options: dict[str, Any], refuse: Callable[[float], Awaitable[None]]
) -> None:
    await asyncio.sleep(0.02)  # so that the order itself is answered
    if kind == "drop":
        sim.sockets.cut()
    elif kind == "refuse":
        await refuse(options["seconds"])
    else:
        sim.sockets.silent = True
        if options["seconds"] is not None:
            await asyncio.sleep(options["seconds"])
            sim.sockets.silent = False
