"""What a route has to work with, and how it reads a request: one Call per request, nothing global.

Knows no route. Reads bodies under a limit and a deadline, and JSON strictly.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import gevent

from broker.protocol.ids import JOB_ID
from broker.runtime.settings import Web
from comfyui import strict
from web.abilities import Abilities
from web.answers import Refusal
from web.auth import Gate
from web.files import Files
from web.grants import Grants
from web.hub import Hub
from web.library import Library
from web.link import Link
from web.turns import Turns
from web.viewer import Viewer
from web.watch import JobWatch
from web.words import Words, chosen

#: How long a body may take to arrive.
BODY_S: Final = 30.0
#: Uploads at the same time, and those of one owner: each is held in memory until it is stored.
MAX_UPLOADS: Final = 4
MAX_UPLOADS_EACH: Final = 2
#: Other bodies that are read at the same time, but for small ones.
MAX_BODIES: Final = 16
MAX_BODIES_EACH: Final = 8
_SMALL_BYTES: Final = 64 << 10
_PIECE_BYTES: Final = 256 << 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that outlives a request."""

    settings: Web
    gate: Gate
    link: Link
    hub: Hub
    files: Files
    abilities: Abilities
    templates: Library
    watch: JobWatch
    grants: Grants
    uploads: Turns = dataclasses.field(default_factory=lambda: Turns(MAX_UPLOADS, MAX_UPLOADS_EACH))
    bodies: Turns = dataclasses.field(default_factory=lambda: Turns(MAX_BODIES, MAX_BODIES_EACH))


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request, and who sent it."""

    site: Site
    environ: Mapping[str, Any]
    viewer: Viewer

    def header(self, name: str) -> str:
        """A request header as text, "" when it is not there."""
        key = name.upper().replace("-", "_")
        return str(self.environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", ""))

    @property
    def words(self) -> Words:
        """The language of whoever sent it."""
        return words_of(self.environ)

    @property
    def content_type(self) -> str:
        return self.header("Content-Type").partition(";")[0].strip().lower()

    def query(self, *allowed: str) -> dict[str, str]:
        """The parameters after the question mark. Raises Refusal for unknown, repeated or malformed ones."""
        text = self.environ.get("QUERY_STRING", "")
        try:
            pairs = parse_qsl(
                text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=20, errors="strict"
            )
        except ValueError as e:
            raise Refusal(400, "bad_query", f"the query cannot be read: {e}") from e
        found = dict(pairs)
        unknown = sorted(found.keys() - set(allowed))
        if len(found) != len(pairs) or unknown:
            told = f"unknown parameter {unknown[0][:50]!r}" if unknown else "a parameter appears twice"
            raise Refusal(400, "bad_query", f"{told}; there are {', '.join(allowed) if allowed else 'none'}")
        return found

    def json(self) -> dict[str, Any]:
        """The JSON object in the body; its texts and depth are not checked yet. Raises Refusal."""
        if self.content_type != "application/json":
            raise Refusal(415, "want_json", "send the body as Content-Type: application/json")
        raw = self.body(self.site.settings.max_body_bytes)
        try:
            value = strict.load(raw)
        except strict.StrictError as e:
            raise Refusal(400, "not_json", f"the body is not JSON that can be taken: {e}") from e
        if not isinstance(value, dict):
            raise Refusal(400, "not_json", "the body must be a JSON object")
        return value

    def no_body(self) -> None:
        """Raises Refusal unless the body is empty or an empty JSON object."""
        empty = self.environ.get("CONTENT_LENGTH", "0") == "0" and not self.content_type
        if not empty and self.json():
            raise Refusal(422, "unknown_key", "this call takes no body")

    def body(self, most_bytes: int, *, has_turn: bool = False) -> bytes:
        """The whole body. has_turn: others wait already until this one is no longer in memory.

        Raises Refusal: 413 too large, 415 compressed, 408 too slow, 400 cut off or malformed, 503 too many at once.
        """
        if self.header("Content-Encoding").lower() not in ("", "identity"):
            raise Refusal(415, "compressed", "send the body without Content-Encoding")
        most = f"{most_bytes >> 20} MiB" if most_bytes >= 1 << 20 else f"{most_bytes >> 10} KiB"
        told = f"a body may have at most {most} here"
        too_large = Refusal(413, "too_large", told, details={"most": most_bytes})
        length = self.header("Content-Length")
        if length and int(length) > most_bytes:
            raise too_large
        stream, pieces, size = self.environ["wsgi.input"], [], 0
        slow = Refusal(408, "too_slow", f"the body did not arrive within {BODY_S:g} s", headers={"Connection": "close"})
        try:
            with gevent.Timeout(BODY_S, slow), contextlib.ExitStack() as turn:
                while piece := stream.read(_PIECE_BYTES if has_turn else _SMALL_BYTES):
                    pieces.append(piece)
                    size += len(piece)
                    if size > most_bytes:
                        raise too_large
                    if size >= _SMALL_BYTES and not has_turn:
                        turn.enter_context(self.site.bodies.turn(self.viewer))
                        has_turn = True
        except OSError as e:
            message = "the body ended early or its chunks are malformed"
            raise Refusal(400, "bad_body", message, headers={"Connection": "close"}) from e
        return b"".join(pieces)


def words_of(environ: Mapping[str, Any]) -> Words:
    """The language of a request's sender."""
    return chosen(environ.get("HTTP_COOKIE", ""), environ.get("HTTP_ACCEPT_LANGUAGE", ""))


def job_id_of(text: str) -> str:
    """A job id out of a path. Raises Refusal: what cannot be an id names no job."""
    if JOB_ID.fullmatch(text) is None:
        raise no_job(text)
    return text


def no_job(job_id: str) -> Refusal:
    return Refusal(404, "not_found", f"no job has the id {job_id[:40]}")
