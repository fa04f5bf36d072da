"""The routes of the page's own storage: users, settings, and files of user data.

A path that leaves the user's folder is answered 403. There is one user.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web

from comfyui.simulator.parts import Simulator


def settings_routes(sim: Simulator) -> web.RouteTableDef:
    routes = web.RouteTableDef()
    file = sim.rig.folders.user / "comfy.settings.json"

    def read() -> dict[str, Any]:
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def write(settings: dict[str, Any]) -> web.Response:
        file.write_text(json.dumps(settings, indent=4))
        return web.Response()

    @routes.get("/users")
    async def users(request: web.Request) -> web.Response:
        return web.json_response({"storage": "server", "migrated": sim.rig.folders.user.is_dir()})

    @routes.get("/settings")
    async def settings(request: web.Request) -> web.Response:
        return web.json_response(read())

    @routes.get("/settings/{name}")
    async def setting(request: web.Request) -> web.Response:
        return web.json_response(read().get(request.match_info["name"]))

    @routes.post("/settings")
    async def set_many(request: web.Request) -> web.Response:
        return write(read() | await request.json())

    @routes.post("/settings/{name}")
    async def set_one(request: web.Request) -> web.Response:
        return write(read() | {request.match_info["name"]: await request.json()})

    return routes


def userdata_routes(sim: Simulator) -> web.RouteTableDef:
    routes = web.RouteTableDef()
    root = sim.rig.folders.user
    dated = sim.rig.release.lists_templates

    def fact(file: Path, base: Path) -> dict[str, Any]:
        stat = file.stat()
        facts = {"path": file.relative_to(base).as_posix(), "size": stat.st_size, "modified": stat.st_mtime}
        return facts | ({"created": stat.st_ctime} if dated else {})

    def inside(name: str) -> Path:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise web.HTTPForbidden(text="")
        return path

    def existing(name: str) -> Path | None:
        path = inside(name)
        return path if path.exists() else None

    def told(file: Path, request: web.Request) -> web.Response:
        full = request.query.get("full_info", "").lower() == "true"
        return web.json_response(fact(file, root) if full else file.relative_to(root).as_posix())

    @routes.get("/userdata")
    async def names(request: web.Request) -> web.Response:
        query = {name: value.lower() == "true" for name, value in request.query.items()}
        if not request.query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        folder = inside(request.query["dir"])
        if not folder.exists():
            return web.Response(status=404, text="Directory not found")
        pattern = "**/*" if query.get("recurse") else "*"
        files = [file for file in sorted(folder.glob(pattern)) if file.is_file()]
        if query.get("full_info"):
            return web.json_response([fact(file, folder) for file in files])
        paths = [file.relative_to(folder).as_posix() for file in files]
        return web.json_response([[path, *path.split("/")] for path in paths] if query.get("split") else paths)

    @routes.get("/v2/userdata")
    async def entries(request: web.Request) -> web.Response:
        folder = inside(request.query.get("path", ""))
        if not folder.is_dir():
            return web.Response(status=404, text="Requested path not found")
        found = []
        for entry in sorted(folder.iterdir(), key=lambda e: (e.is_file(), e.name)):
            shown: dict[str, Any] = {"name": entry.name, "path": entry.relative_to(root).as_posix()}
            if entry.is_dir():
                found.append(shown | {"type": "directory"})
            else:
                stat = entry.stat()
                found.append(shown | {"type": "file", "size": stat.st_size, "modified": stat.st_mtime})
        return web.json_response(found)

    @routes.get("/userdata/{file}")
    async def read(request: web.Request) -> web.StreamResponse:
        file = existing(request.match_info["file"])
        return web.Response(status=404) if file is None else web.FileResponse(file)

    @routes.post("/userdata/{file}")
    async def write(request: web.Request) -> web.Response:
        file = inside(request.match_info["file"])
        if request.query.get("overwrite") == "false" and file.exists():
            return web.Response(status=409, text="File already exists")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(await request.read())
        return told(file, request)

    @routes.delete("/userdata/{file}")
    async def delete(request: web.Request) -> web.Response:
        file = existing(request.match_info["file"])
        if file is None:
            return web.Response(status=404)
        file.unlink()
        return web.Response(status=204)

    @routes.post("/userdata/{file}/move/{target}")
    async def move(request: web.Request) -> web.Response:
        source, target = existing(request.match_info["file"]), inside(request.match_info["target"])
        if source is None:
            return web.Response(status=404)
        if request.query.get("overwrite") == "false" and target.exists():
            return web.Response(status=409, text="File already exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        return told(target, request)

    return routes
