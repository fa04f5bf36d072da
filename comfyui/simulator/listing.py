"""The routes that tell what a server has: node classes, models, its version and card, its folders, its features.

All of them only read.
"""

import json
import sys
from typing import Any

import psutil
from aiohttp import web

from comfyui.simulator.folders import KINDS
from comfyui.simulator.parts import Simulator

#: What GET /experiment/models leaves out.
NO_MODELS = ("configs", "custom_nodes")


def features(sim: Simulator) -> dict[str, Any]:
    """The server's side of the feature flags."""
    flags: dict[str, Any] = {"supports_preview_metadata": True, "max_upload_size": sim.max_upload_bytes}
    return flags | ({"supports_model_type_tags": True, "node_replacements": True} if sim.rig.release.modern else {})


class Listing:
    """Node classes, models, version and card."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self._folders = sim.rig.folders

    def routes(self) -> list[web.RouteDef]:
        constants: tuple[tuple[str, Any], ...] = (("/extensions", []), ("/i18n", {}), ("/workflow_templates", {}))
        return [
            web.get("/object_info", self.all_classes),
            web.get("/object_info/{name}", self.one_class),
            web.get("/embeddings", self.embeddings),
            web.get("/models", self.kinds),
            web.get("/models/{kind}", self.models),
            web.get("/experiment/models", self.model_folders),
            web.get("/experiment/models/{kind}", self.model_files),
            web.get("/experiment/models/preview/{kind}/{place}/{name:.*}", self.no_preview),
            web.get("/view_metadata/{kind}", self.metadata),
            web.get("/system_stats", self.system_stats),
            *([web.get("/features", self.features)] if self._sim.rig.release.negotiates else []),
            *(web.get(path, _constant(content)) for path, content in constants),
        ]

    async def all_classes(self, request: web.Request) -> web.Response:
        catalog = self._sim.catalog
        return web.json_response({name: catalog.entry(name) for name in catalog.names()})

    async def one_class(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        entry = self._sim.catalog.entry(name)
        return web.json_response({} if entry is None else {name: entry})

    async def embeddings(self, request: web.Request) -> web.Response:
        return web.json_response([name.rpartition(".")[0] for name in self._folders.files("embeddings")])

    async def kinds(self, request: web.Request) -> web.Response:
        return web.json_response(self._folders.kinds)

    async def models(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        known = kind in self._folders.kinds
        return web.json_response(self._folders.files(kind)) if known else web.Response(status=404)

    async def model_folders(self, request: web.Request) -> web.Response:
        shown = [kind for kind in self._folders.kinds if kind not in NO_MODELS]
        return web.json_response([{"name": kind, "folders": _paths(self._sim, kind)} for kind in shown])

    async def model_files(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        known = kind in self._folders.kinds
        return web.json_response(_model_facts(self._sim, kind)) if known else web.Response(status=404)

    async def no_preview(self, request: web.Request) -> web.Response:
        return web.Response(status=404)

    async def metadata(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.query.get("filename", "")
        known = kind in self._folders.kinds and name.endswith(".safetensors")
        file = self._folders.model(kind, name) if known else None
        if file is None:
            return web.Response(status=404)
        with file.open("rb") as f:  # a safetensors file begins with the length of its JSON header
            header = f.read(int.from_bytes(f.read(8), "little"))
        metadata = json.loads(header).get("__metadata__") if header else None
        return web.Response(status=404) if metadata is None else web.json_response(metadata)

    async def system_stats(self, request: web.Request) -> web.Response:
        return web.json_response({"system": _system(self._sim), "devices": [_device(self._sim)]})

    async def features(self, request: web.Request) -> web.Response:
        return web.json_response(features(self._sim))


def internal_routes(sim: Simulator) -> web.RouteTableDef:
    """To be mounted under /internal."""
    routes = web.RouteTableDef()

    @routes.get("/folder_paths")
    async def folder_paths(request: web.Request) -> web.Response:
        return web.json_response({kind: _paths(sim, kind) for kind in sim.rig.folders.kinds})

    @routes.get("/files/{kind}")
    async def files(request: web.Request) -> web.Response:
        folder = sim.rig.folders.by_type(request.match_info["kind"])
        if folder is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        found = [entry for entry in folder.iterdir() if entry.is_file()]
        found.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
        return web.json_response([entry.name for entry in found])

    routes.get("/logs")(_constant(""))
    routes.get("/logs/raw")(_constant({"entries": [], "size": {"cols": 80, "rows": 24}}))

    @routes.patch("/logs/subscribe")
    async def subscribe(request: web.Request) -> web.Response:
        body = await request.json()
        return web.Response(status=200 if "clientId" in body and "enabled" in body else 500)

    return routes


def _constant(content: Any) -> Any:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(content)

    return answer


def _paths(sim: Simulator, kind: str) -> list[str]:
    return [str(sim.rig.folders.base / place) for place in KINDS[kind]]


def _model_facts(sim: Simulator, kind: str) -> list[dict[str, Any]]:
    facts = []
    for place, folder in enumerate(sim.rig.folders.paths(kind)):
        for name in sim.rig.folders.files(kind):
            if (folder / name).is_file():
                fact: dict[str, Any] = {"name": name, "pathIndex": place}
                if sim.rig.release.lists_templates:
                    stat = (folder / name).stat()
                    fact |= {"modified": stat.st_mtime, "created": stat.st_ctime, "size": stat.st_size}
                facts.append(fact)
    return facts


def _system(sim: Simulator) -> dict[str, Any]:
    release, ram = sim.rig.release, psutil.virtual_memory()
    facts = {"os": sys.platform if release.modern else "posix", "ram_total": ram.total, "ram_free": ram.available}
    facts["comfyui_version"] = release.text
    if release.lists_templates:
        facts["required_frontend_version"] = "1.27.10"
        facts |= {"installed_templates_version": "0.1.95", "required_templates_version": "0.1.95"}
    if release.modern:
        facts |= {"comfy_package_versions": [], "deploy_environment": "local-git"}
    facts |= {"python_version": sys.version, "pytorch_version": f"2.7.1+simulated.{sim.rig.pace.card.kind}"}
    return facts | {"embedded_python": False, "argv": sim.argv}


def _device(sim: Simulator) -> dict[str, Any]:
    card, memory = sim.rig.pace.card, sim.rig.memory
    return {
        "name": card.name,
        "type": card.kind,
        "index": card.index,
        "vram_total": card.vram_bytes,
        "vram_free": memory.free_bytes,
        "torch_vram_total": memory.used_bytes if card.kind == "cuda" else card.vram_bytes,
        "torch_vram_free": 0 if card.kind == "cuda" else memory.free_bytes,
    }
