"""`python -m scripts.rivals.bare FOLDER`: gevent's pywsgi with TCP_NODELAY and a handler by hand, the least that a
server of this kind can do.

POST /check reads JSON and refuses a key it does not know; POST /keep commits it to SQLite before it answers; GET
/pictures/NAME is that file of FOLDER, and GET /page a page of one line.
"""

# ruff: noqa: E402  # as in web/__main__.py
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any

from gevent.pywsgi import WSGIServer

from scripts.rivals.ledger import KEYS, opened


class Bare(WSGIServer):
    def handle(self, sock: Any, address: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)


PAGE = b"<!doctype html><html lang=en><meta charset=utf-8><title>A page</title><p>One line."


def application(folder: Path, ledger: sqlite3.Connection) -> Any:
    def serve(environ: Any, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/pictures/"):
            body, status, kind = (folder / path[10:]).read_bytes(), "200 OK", "image/png"
        elif path == "/page":
            body, status, kind = PAGE, "200 OK", "text/html; charset=UTF-8"
        else:
            kind = "application/json"
            asked = json.loads(environ["wsgi.input"].read())
            unknown = asked.keys() - KEYS
            if unknown:
                body, status = json.dumps({"error": f"unknown key {min(unknown)}"}).encode(), "422 Unprocessable Entity"
            else:
                with ledger:
                    found = ledger.execute("INSERT INTO jobs (workflow) VALUES (?)", (json.dumps(asked),))
                body, status = json.dumps({"id": found.lastrowid}).encode(), "202 Accepted"
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    return serve


if __name__ == "__main__":
    here = Path(sys.argv[1])
    server = Bare(("127.0.0.1", 0), application(here, opened(here / "bare.sqlite3")), log=None)
    server.start()
    print(f"ready http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
