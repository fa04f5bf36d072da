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


class Settings:
    """Users, and the settings in one file."""

    def __init__(self, sim: Simulator) -> None:
        self._folder = sim.rig.folders.user
        self._file = self._folder / "comfy.settings.json"
        self._names: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/users", self.users),
            web.post("/users", self.add_user),
            web.get("/settings", self.all),
            web.get("/settings/{name}", self.one),
            web.post("/settings", self.set_many),
            web.post("/settings/{name}", self.set_one),
        ]

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self._file.read_text())) if self._file.is_file() else {}

    def _write(self, settings: dict[str, Any]) -> web.Response:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(settings, indent=4))
        return web.Response()

    async def users(self, request: web.Request) -> web.Response:
        return web.json_response({"storage": "server", "migrated": self._folder.is_dir()})

    async def add_user(self, request: web.Request) -> web.Response:
        name = (await request.json())["username"]
        if name in self._names:
            return web.json_response({"error": "Duplicate username."}, status=400)
        self._names.add(name)
        return web.json_response(f"{name}_{uuid.uuid4()}")

    async def all(self, request: web.Request) -> web.Response:
        return web.json_response(self._read())

    async def one(self, request: web.Request) -> web.Response:
        return web.json_response(self._read().get(request.match_info["name"]))

    async def set_many(self, request: web.Request) -> web.Response:
        return self._write(self._read() | await request.json())

    async def set_one(self, request: web.Request) -> web.Response:
        return self._write(self._read() | {request.match_info["name"]: await request.json()})


class UserData:
    """Files that the page keeps."""

    def __init__(self, sim: Simulator) -> None:
        self._root = sim.rig.folders.user
        self._dated = sim.rig.release.lists_templates

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/userdata", self.names),
            web.get("/v2/userdata", self.entries),
            web.get("/userdata/{file}", self.read),
            web.post("/userdata/{file}", self.write),
            web.delete("/userdata/{file}", self.delete),
            web.post("/userdata/{file}/move/{target}", self.move),
        ]

    async def names(self, request: web.Request) -> web.Response:
        query = {name: value.lower() == "true" for name, value in request.query.items()}
        if not request.query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        folder = self._inside(request.query["dir"])
        if folder is None:
            return web.Response(status=403, text="Invalid directory")
        if not folder.exists():
            return web.Response(status=404, text="Directory not found")
        files = [file for file in sorted(folder.glob("**/*" if query.get("recurse") else "*")) if file.is_file()]
        if query.get("full_info"):
            return web.json_response([self._fact(file, folder) for file in files])
        paths = [file.relative_to(folder).as_posix() for file in files]
        return web.json_response([[path, *path.split("/")] for path in paths] if query.get("split") else paths)

    async def entries(self, request: web.Request) -> web.Response:
        folder = self._inside(request.query.get("path", ""))
        if folder is None:
            return web.Response(status=400, text="Invalid path requested")
        if not folder.is_dir():
            empty = folder == self._root
            return web.json_response([]) if empty else web.Response(status=404, text="Requested path not found")
        listed = []
        for entry in sorted(folder.iterdir(), key=lambda e: (e.is_file(), e.name)):
            shown: dict[str, Any] = {"name": entry.name, "path": entry.relative_to(self._root).as_posix()}
            if entry.is_dir():
                listed.append(shown | {"type": "directory"})
            else:
                stat = entry.stat()
                listed.append(shown | {"type": "file", "size": stat.st_size, "modified": stat.st_mtime})
        return web.json_response(listed)

    async def read(self, request: web.Request) -> web.StreamResponse:
        file = self._found(request.match_info["file"])
        return web.FileResponse(file) if isinstance(file, Path) else file

    async def write(self, request: web.Request) -> web.Response:
        return self._written(request.match_info["file"], await request.read(), request)

    async def delete(self, request: web.Request) -> web.Response:
        file = self._found(request.match_info["file"])
        if not isinstance(file, Path):
            return file
        file.unlink()
        return web.Response(status=204)

    async def move(self, request: web.Request) -> web.Response:
        source = self._found(request.match_info["file"])
        if not isinstance(source, Path):
            return source
        answer = self._written(request.match_info["target"], source.read_bytes(), request)
        if answer.status == 200:
            source.unlink()
        return answer

    def _inside(self, name: str) -> Path | None:
        """The path under the user's folder; None for one that leaves it."""
        path = Path(os.path.abspath(self._root / name))
        return path if path.is_relative_to(self._root) else None

    def _found(self, name: str) -> Path | web.Response:
        """The path of something that is there, or what refuses it."""
        path = self._inside(name)
        if path is None:
            return web.Response(status=403)
        return path if path.exists() else web.Response(status=404)

    def _fact(self, file: Path, base: Path) -> dict[str, Any]:
        stat = file.stat()
        facts = {"path": file.relative_to(base).as_posix(), "size": stat.st_size, "modified": stat.st_mtime}
        return facts | ({"created": stat.st_ctime} if self._dated else {})

    def _written(self, name: str, content: bytes, request: web.Request) -> web.Response:
        """Writes the file unless it may not be, and names it."""
        file = self._inside(name)
        if file is None:
            return web.Response(status=403)
        if request.query.get("overwrite") == "false" and file.exists():
            return web.Response(status=409, text="File already exists")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        full = request.query.get("full_info", "").lower() == "true"
        shown = self._fact(file, self._root) if full else file.relative_to(self._root).as_posix()
        return web.json_response(shown)
