"""The web server of a simulator: its routes with and without /api, its WebSocket, and who may ask.

It is built on aiohttp because the real one is: statuses, headers, ranges and the texts of errors come out alike. The
Listener owns the listening socket; handlers own their connections.
"""

import asyncio
import ipaddress
import json
import socket
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from comfyui.simulator.events import Socket
from comfyui.simulator.faults import fault_routes, faulty
from comfyui.simulator.listing import Listing, features, internal_routes
from comfyui.simulator.parts import Simulator
from comfyui.simulator.prompting import history_routes, job_routes, prompt_routes, queue_info
from comfyui.simulator.storage import Settings, UserData
from comfyui.simulator.versions import Release
from comfyui.simulator.viewing import view_routes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAGE = "<!doctype html><title>Simulated ComfyUI</title><p>This is a simulated ComfyUI: it has an API and no page."
PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Listener:
    """Takes connections on one address; can stop taking them for a while."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        self._runner = runner
        self._host = host
        self.port = port
        self._site: web.SockSite | None = None

    async def open(self) -> None:
        """Raises OSError when the address cannot be had."""
        listening = socket.create_server((self._host, self.port), backlog=128)
        self.port = listening.getsockname()[1]
        self._site = web.SockSite(self._runner, listening)
        await self._site.start()

    async def refuse(self, seconds: float) -> None:
        """Cuts every connection and takes none for so long."""
        if self._site is not None:
            await self._site.stop()
        for connection in self._runner.server.connections if self._runner.server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(seconds)
        await self.open()


def application(sim: Simulator, refuse: Callable[[float], Awaitable[None]]) -> web.Application:
    """The whole API; `refuse` is how the mischief of that name is done."""
    middlewares = [faulty(sim.rig.mischief), _cache_control(sim.rig.release), _same_origin(sim.rig.release.modern)]
    app = web.Application(client_max_size=sim.max_upload_bytes, middlewares=middlewares)
    routes: list[web.AbstractRouteDef] = [*prompt_routes(sim), *history_routes(sim), *view_routes(sim)]
    routes += [*_socket_routes(sim), *Listing(sim).routes(), *Settings(sim).routes(), *UserData(sim).routes()]
    app.add_routes(routes)
    app.add_routes([web.route(r.method, f"/api{r.path}", r.handler) for r in routes if isinstance(r, web.RouteDef)])
    if sim.rig.release.modern:
        app.add_routes(job_routes(sim))
    internal = web.Application()
    internal.add_routes(internal_routes(sim))
    app.add_subapp("/internal", internal)
    app.add_routes(fault_routes(sim, refuse))
    for path in ("/", "/api/"):
        app.router.add_get(path, _page)
    app.router.add_static("/", sim.rig.folders.base / "web")  # why an unknown path is a missing file, without a body
    return app


async def _page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


def _socket_routes(sim: Simulator) -> web.RouteTableDef:
    routes = web.RouteTableDef()

    @routes.get("/ws")
    async def connect(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        own = Socket(ws, request.transport)
        sim.sockets.add(client_id, own)
        writer = asyncio.create_task(sim.sockets.write_own(own))
        try:
            await sim.sockets.tell("status", {"status": queue_info(sim), "sid": client_id}, own)
            if sim.executor.client_id == client_id and sim.executor.last_node_id is not None:
                await sim.sockets.tell("executing", {"node": sim.executor.last_node_id}, own)
            await _listen(sim, own)
        finally:
            writer.cancel()
            sim.sockets.remove(client_id, own)
        return ws

    return routes


async def _listen(sim: Simulator, own: Socket) -> None:
    """Reads until the client goes; only its first JSON message counts, and only if it negotiates features."""
    first = True
    async for message in own.ws:
        if message.type is WSMsgType.TEXT and first and sim.rig.release.negotiates:
            try:
                content = json.loads(message.data)
            except json.JSONDecodeError:
                continue
            if isinstance(content, dict):
                first = False
                if content.get("type") == "feature_flags":
                    own.flags = content.get("data", {})
                    await sim.sockets.tell("feature_flags", features(sim), own)


def _cache_control(release: Release) -> Any:
    """Scripts are not cached; pictures under their own name are, for a day, by servers newer than 0.3.34."""

    @web.middleware
    async def mark(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        path = request.path.lower()
        if path.endswith((".js", ".css")):
            response.headers.setdefault("Cache-Control", "no-cache")
        elif path.endswith(PICTURES) and release.number > (0, 3, 34):
            age = 3600 if response.status == 404 else 86400
            response.headers.setdefault("Cache-Control", f"public, max-age={age}")
        return response

    return mark


def _same_origin(checks_fetch_site: bool) -> Any:
    """Refuses a page of another origin when the request came to a loopback name, and answers every OPTIONS."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if checks_fetch_site and request.headers.get("Sec-Fetch-Site") == "cross-site":
            return web.Response(status=403)
        if _foreign(request.headers.get("Host", ""), request.headers.get("Origin", "")):
            return web.Response(status=403)
        return web.Response() if request.method == "OPTIONS" else await handler(request)

    return check


def _foreign(host: str, origin: str) -> bool:
    """Whether the origin differs from a loopback host; a port counts only where both name one."""
    asked, asking = urlsplit(f"//{host.lower()}"), urlsplit(origin.lower())
    if not asked.hostname or not asking.hostname or not _is_loopback(asked.hostname):
        return False
    if asked.port is None or asking.port is None:
        return asked.hostname != asking.hostname
    return (asked.hostname, asked.port) != (asking.hostname, asking.port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
