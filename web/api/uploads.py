"""POST uploads: a picture into the file store. Its bytes say what it is; its name is made here, from its digest."""

from __future__ import annotations

from typing import Final

from bottle import HTTPResponse

from web import images
from web.answers import Refusal, answered
from web.api.site import Call
from web.files import NoRoom
from web.multipart import BadMultipart, part

#: A picture of more pixels is taken for a bomb: some node would have to unpack it.
MAX_PIXELS: Final = 64_000_000


def post(call: Call) -> HTTPResponse:
    """POST /api/v1/uploads"""
    call.query()
    with call.site.uploads.turn(call.viewer):
        raw = call.body(call.site.settings.max_upload_bytes, has_turn=True)
        data = _content(call, raw)
        media_type, size = judged(data)
        try:
            sha256 = call.site.files.put(data)
        except NoRoom as e:
            text = "the broker's disk is almost full: an admin has to make room"
            raise Refusal(507, "disk_full", text, headers={"Retry-After": "30"}) from e
    call.site.grants.add(call.viewer.owner, sha256)
    made = {
        "name": f"{sha256}.{images.UPLOADS[media_type]}",
        "sha256": sha256,
        "size_bytes": len(data),
        "media_type": media_type,
        "width": size.width,
        "height": size.height,
    }
    return answered(made, 201, {"Location": f"/api/v1/files/{sha256}"})


def judged(data: bytes) -> tuple[str, images.Size]:
    """What picture this is. Raises Refusal: 400 nothing, 415 no picture we take, 422 damaged, 413 too many pixels."""
    if not data:
        raise Refusal(400, "empty", "the upload has no bytes")
    media_type = images.media_type(data[: images.HEAD_BYTES])
    if media_type not in images.UPLOADS:
        raise Refusal(415, "not_a_picture", "want a PNG, JPEG or WebP picture, whatever its name")
    try:
        size = images.size(data)
    except images.DamagedImage as e:
        raise Refusal(422, "damaged", f"the picture is damaged: {e}") from e
    if size.width * size.height > MAX_PIXELS:
        message = f"the picture has {size.width} x {size.height} pixels; at most {MAX_PIXELS} are taken"
        raise Refusal(413, "too_many_pixels", message, details={"width": size.width, "height": size.height})
    return media_type, size


def _content(call: Call, raw: bytes) -> bytes:
    """The picture in a body: all of it, or the part `file` of a form."""
    if call.content_type != "multipart/form-data":
        return raw
    try:
        return part(raw, call.header("Content-Type"), "file")
    except BadMultipart as e:
        raise Refusal(400, "bad_multipart", f"the form cannot be read: {e}") from e
