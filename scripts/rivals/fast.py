"""`python -m scripts.rivals.fast FOLDER`: the same as scripts.rivals.bare with FastAPI on uvicorn, uvloop, httptools,
as their documentation has it; what blocks runs in threads, and no line is logged for a request."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse

from scripts.rivals.ledger import KEYS, opened


def application(folder: Path) -> FastAPI:
    app = FastAPI()
    own = threading.local()

    @app.post("/check")
    async def check(asked: dict[str, Any]) -> JSONResponse:
        unknown = asked.keys() - KEYS
        return JSONResponse({"error": f"unknown key {min(unknown)}"}, 422)

    @app.post("/keep")
    def keep(asked: dict[str, Any]) -> JSONResponse:
        if not hasattr(own, "ledger"):
            own.ledger = opened(folder / "fast.sqlite3")
        with own.ledger as ledger:
            found = ledger.execute("INSERT INTO jobs (workflow) VALUES (?)", (json.dumps(asked),))
        return JSONResponse({"id": found.lastrowid}, 202)

    @app.get("/pictures/{name}")
    def picture(name: str) -> FileResponse:
        return FileResponse(folder / name, media_type="image/png")

    return app


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(application(Path(sys.argv[1])), access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])
