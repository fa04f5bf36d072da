"""A file server on loopback that behaves as real ones do on bad days: breaks off, cannot resume, answers errors."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

QUIET_S = 0.05


@dataclasses.dataclass
class Mood:
    """How the next request is answered."""

    #: Bytes after which the connection is cut; None: all of them.
    cut_after: int | None = None
    #: Answered in place of the file.
    status: int | None = None
    #: Range headers are ignored, as by simple servers.
    no_ranges: bool = False


class FileServer:
    """Serves `files` (path -> content) while entered; the `moods` are used up one a request, then all is well."""

    def __init__(self, files: dict[str, bytes], moods: list[Mood] | None = None) -> None:
        self.files = files
        self.moods = deque(moods or [])
        #: (path, first byte asked for) of every request.
        self.asked: list[tuple[str, int]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": QUIET_S})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(owner: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            mood = owner.moods.popleft() if owner.moods else Mood()
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(wanted[1]) if wanted is not None else 0
            owner.asked.append((self.path, first))
            content = owner.files.get(self.path)
            if mood.no_ranges:
                first = 0
            status = mood.status or (404 if content is None else 206 if first else 200)
            if content is not None and first and first >= len(content):
                status = 416
            body = content[first:] if content is not None and status in (200, 206) else b"<html>no</html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 206 and content is not None:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(body[: mood.cut_after])
            self.close_connection = mood.cut_after is not None

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    return Handler
