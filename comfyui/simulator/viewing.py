"""The routes that move pictures: /view with its conversions, /upload/image and /upload/mask.

Paths that leave their folder are refused as the real server does: 400 for a bad name, 403 for a bad subfolder. Nothing
but the uploaded file is written.
"""

import json
import mimetypes
import os
from io import BytesIO
from pathlib import Path
from typing import Any

from aiohttp import web
from PIL import Image

from comfyui.simulator.folders import Folders
from comfyui.simulator.parts import Simulator

#: Served as plain bytes, so that no browser runs them.
ACTIVE_TYPES = ("text/html", "text/javascript", "text/css", "application/xhtml+xml")


def view_routes(sim: Simulator) -> web.RouteTableDef:
    routes = web.RouteTableDef()
    folders = sim.rig.folders

    @routes.get("/view")
    async def view(request: web.Request) -> web.StreamResponse:
        file = _viewed(folders, dict(request.query))
        if isinstance(file, int):
            return web.Response(status=file)
        query = request.query
        if "preview" in query:
            return _preview(file, query["preview"], query.get("channel", ""))
        if query.get("channel") in ("rgb", "a"):
            return _channel(file, query["channel"])
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        headers = {"Content-Disposition": f'filename="{file.name}"'}
        headers["Content-Type"] = "application/octet-stream" if kind in ACTIVE_TYPES else kind
        if file.suffix == ".js":  # the real server gives scripts a type of its own, which its list does not hold back
            headers["Content-Type"] = "application/javascript; charset=utf-8"
        request["file"] = file
        return web.FileResponse(file, headers=headers)

    @routes.post("/upload/image")
    async def upload_image(request: web.Request) -> web.Response:
        return _upload(folders, dict(await request.post()), mask=False)

    @routes.post("/upload/mask")
    async def upload_mask(request: web.Request) -> web.Response:
        return _upload(folders, dict(await request.post()), mask=True)

    return routes


def _viewed(folders: Folders, query: dict[str, str]) -> Path | int:
    """The file a query names, or the status that refuses it."""
    if "filename" not in query:
        return 404
    name, folder = folders.annotated(query["filename"])
    if not name or name.startswith("/") or ".." in name:
        return 400
    folder = folder if folder is not None else folders.by_type(query.get("type", "output"))
    if folder is None:
        return 400
    place = Path(os.path.abspath(folder / query.get("subfolder", "")))
    if not place.is_relative_to(folder):
        return 403
    file = place / Path(name).name
    return file if file.is_file() else 404


def _answer(file: Path, picture: Image.Image, kind: str, **settings: Any) -> web.Response:
    buffer = BytesIO()
    picture.save(buffer, format=kind, **settings)
    headers = {"Content-Disposition": f'filename="{file.name}"'}
    return web.Response(body=buffer.getvalue(), content_type=f"image/{kind}", headers=headers)


def _preview(file: Path, wish: str, channel: str) -> web.Response:
    """webp or jpeg, quality 90 unless ";70" or the like is added."""
    kind, *rest = wish.split(";")
    if kind not in ("webp", "jpeg") or "a" in channel:
        kind = "webp"
    quality = int(rest[-1]) if rest and rest[-1].isdigit() else 90
    with Image.open(file) as opened:
        picture = opened.convert("RGB") if kind == "jpeg" or channel == "rgb" else opened
        return _answer(file, picture, kind, quality=quality)


def _channel(file: Path, channel: str) -> web.Response:
    """The picture without its transparency, or nothing but it."""
    with Image.open(file) as opened:
        if channel == "rgb":
            return _answer(file, opened.convert("RGB"), "png")
        alpha = opened.getchannel("A") if opened.mode == "RGBA" else Image.new("L", opened.size, 255)
        bare = Image.new("RGBA", opened.size)
        bare.putalpha(alpha)
        return _answer(file, bare, "png")


def _trouble() -> web.HTTPInternalServerError:
    return web.HTTPInternalServerError(text="500 Internal Server Error\n\nServer got itself in trouble")


def _upload(folders: Folders, form: dict[str, Any], mask: bool) -> web.Response:
    """Saves the form's image under its name, or the next free "name (1).png"; the same bytes again are not saved."""
    kind = form.get("type", "input")
    folder = folders.by_type(kind)
    if folder is None:
        raise _trouble()
    image = form.get("image")
    if isinstance(image, str | bytes | bytearray) and image:  # a text has no file
        raise _trouble()
    if not isinstance(image, web.FileField) or not image.filename:
        return web.Response(status=400)
    subfolder = form.get("subfolder", "")
    place = Path(os.path.abspath(folder / subfolder))
    file = Path(os.path.abspath(place / image.filename))
    if not file.is_relative_to(folder):
        return web.Response(status=400)
    place.mkdir(parents=True, exist_ok=True)
    content = image.file.read()
    stem, ending = os.path.splitext(image.filename)
    name, copy = image.filename, 0
    if form.get("overwrite") not in ("true", "1"):
        while file.exists() and file.read_bytes() != content:
            copy += 1
            name = f"{stem} ({copy}){ending}"
            file = place / name
    if mask:
        _save_masked(folders, json.loads(form["original_ref"]), content, file)
    else:
        file.write_bytes(content)
    return web.json_response({"name": name, "subfolder": subfolder, "type": kind})


def _save_masked(folders: Folders, original: dict[str, str], mask: bytes, target: Path) -> None:
    """Writes the original with the mask's transparency; without an original nothing is written."""
    if "filename" not in original:
        raise _trouble()
    source = _viewed(folders, {"type": "output"} | original)
    if isinstance(source, Path):
        with Image.open(source) as opened, Image.open(BytesIO(mask)) as transparency:
            picture = opened.convert("RGBA")
            picture.putalpha(transparency.convert("RGBA").getchannel("A"))
            picture.save(target, compress_level=4)
