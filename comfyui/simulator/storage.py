"""The routes of the page's own storage: users, settings, and files of user data.

A path that leaves the user's folder is refused. There is one user; others can be added and change nothing.
"""

import json
import os
import uuid
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
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=4))
        return web.Response()

    @routes.get("/users")
    async def users(request: web.Request) -> web.Response:
        return web.json_response({"storage": "server", "migrated": sim.rig.folders.user.is_dir()})

    names: set[str] = set()

    @routes.post("/users")
    async def add_user(request: web.Request) -> web.Response:
        name = (await request.json())["username"]
        if name in names:
            return web.json_response({"error": "Duplicate username."}, status=400)
        names.add(name)
        return web.json_response(f"{name}_{uuid.uuid4()}")

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

    def inside(name: str) -> Path | None:
        """The path under the user's folder; None for one that leaves it."""
        path = Path(os.path.abspath(root / name))
        return path if path.is_relative_to(root) else None

    def found(name: str) -> Path | web.Response:
        """The path of something that is there, or what refuses it."""
        path = inside(name)
        if path is None:
            return web.Response(status=403)
        return path if path.exists() else web.Response(status=404)

    @routes.get("/userdata")
    async def names(request: web.Request) -> web.Response:
        query = {name: value.lower() == "true" for name, value in request.query.items()}
        if not request.query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        folder = inside(request.query["dir"])
        if folder is None:
            return web.Response(status=403, text="Invalid directory")
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
        if folder is None:
            return web.Response(status=400, text="Invalid path requested")
        if not folder.is_dir():
            return (
                web.json_response([]) if folder == root else web.Response(status=404, text="Requested path not found")
            )
        listed = []
        for entry in sorted(folder.iterdir(), key=lambda e: (e.is_file(), e.name)):
            shown: dict[str, Any] = {"name": entry.name, "path": entry.relative_to(root).as_posix()}
            if entry.is_dir():
                listed.append(shown | {"type": "directory"})
            else:
                stat = entry.stat()
                listed.append(shown | {"type": "file", "size": stat.st_size, "modified": stat.st_mtime})
        return web.json_response(listed)

    @routes.get("/userdata/{file}")
    async def read(request: web.Request) -> web.StreamResponse:
        file = found(request.match_info["file"])
        return web.FileResponse(file) if isinstance(file, Path) else file

    @routes.post("/userdata/{file}")
    async def write(request: web.Request) -> web.Response:
        return _written(inside(request.match_info["file"]), await request.read(), request)

    @routes.delete("/userdata/{file}")
    async def delete(request: web.Request) -> web.Response:
        file = found(request.match_info["file"])
        if not isinstance(file, Path):
            return file
        file.unlink()
        return web.Response(status=204)

    @routes.post("/userdata/{file}/move/{target}")
    async def move(request: web.Request) -> web.Response:
        source = found(request.match_info["file"])
        if not isinstance(source, Path):
            return source
        answer = _written(inside(request.match_info["target"]), source.read_bytes(), request)
        if answer.status == 200:
            source.unlink()
        return answer

    def _written(file: Path | None, content: bytes, request: web.Request) -> web.Response:
        """Writes the file unless it may not be, and names it."""
        if file is None:
            return web.Response(status=403)
        if request.query.get("overwrite") == "false" and file.exists():
            return web.Response(status=409, text="File already exists")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        full = request.query.get("full_info", "").lower() == "true"
        return web.json_response(fact(file, root) if full else file.relative_to(root).as_posix())

    return routes
