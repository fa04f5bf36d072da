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


def listing_routes(sim: Simulator) -> web.RouteTableDef:
    routes = web.RouteTableDef()
    folders, release = sim.rig.folders, sim.rig.release

    @routes.get("/object_info")
    async def object_info(request: web.Request) -> web.Response:
        return web.json_response({name: sim.catalog.entry(name) for name in sim.catalog.names()})

    @routes.get("/object_info/{name}")
    async def object_info_one(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        entry = sim.catalog.entry(name)
        return web.json_response({} if entry is None else {name: entry})

    @routes.get("/embeddings")
    async def embeddings(request: web.Request) -> web.Response:
        return web.json_response([name.rpartition(".")[0] for name in folders.files("embeddings")])

    @routes.get("/models")
    async def models(request: web.Request) -> web.Response:
        return web.json_response(folders.kinds)

    @routes.get("/models/{kind}")
    async def models_of_kind(request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        return web.json_response(folders.files(kind)) if kind in folders.kinds else web.Response(status=404)

    @routes.get("/experiment/models")
    async def model_folders(request: web.Request) -> web.Response:
        shown = [kind for kind in folders.kinds if kind not in NO_MODELS]
        return web.json_response([{"name": kind, "folders": _paths(sim, kind)} for kind in shown])

    @routes.get("/experiment/models/{kind}")
    async def model_files(request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        return web.json_response(_model_facts(sim, kind)) if kind in folders.kinds else web.Response(status=404)

    @routes.get("/experiment/models/preview/{kind}/{place}/{name:.*}")
    async def model_preview(request: web.Request) -> web.Response:
        return web.Response(status=404)

    @routes.get("/view_metadata/{kind}")
    async def view_metadata(request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.query.get("filename", "")
        file = folders.model(kind, name) if kind in folders.kinds and name.endswith(".safetensors") else None
        if file is None:
            return web.Response(status=404)
        with file.open("rb") as f:  # a safetensors file begins with the length of its JSON header
            header = f.read(int.from_bytes(f.read(8), "little"))
        metadata = json.loads(header).get("__metadata__") if header else None
        return web.Response(status=404) if metadata is None else web.json_response(metadata)

    @routes.get("/system_stats")
    async def system_stats(request: web.Request) -> web.Response:
        return web.json_response({"system": _system(sim), "devices": [_device(sim)]})

    if release.negotiates:

        @routes.get("/features")
        async def get_features(request: web.Request) -> web.Response:
            return web.json_response(features(sim))

    for path, content in (("/extensions", []), ("/i18n", {}), ("/workflow_templates", {})):
        routes.get(path)(_constant(content))
    return routes


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
