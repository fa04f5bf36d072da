"""What the web process adds to HTTP: JSON of 2 KB that it reads and refuses, jobs that it answers for once they are on
disk, pictures of 2 MB, each new and again; beside the same on a bare pywsgi and on FastAPI with uvicorn. A job that is
kept and a picture that is new pass through the broker too: a second process and two more sockets, which share the
processors with the server and its visitors, where the others keep and read files in the process that answers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import statistics
import struct
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from scripts.figures import Figure, Samples
from scripts.fleet import ROOT, Fleet, Process
from scripts.visitors import Request, Visit, elsewhere, visit

PICTURE_BYTES: Final = 2_000_000
GOALS: Final = {"bare": 0.65, "fast": 0.8}
NAMES: Final = {"bare": "bare pywsgi", "fast": "FastAPI"}
#: What is asked: requests of a round, connections, and the status of every answer.
WORK: Final = {
    "JSON POST": (2_000, 16, 422),
    "durable POST": (600, 16, 202),
    "new picture": (24, 4, 200),
    "picture again": (120, 4, 200),
}


def measure(*, quick: bool) -> Iterator[Figure]:
    rounds, share = (1, 12) if quick else (7, 1)
    rates: dict[str, dict[str, list[float]]] = {what: {} for what in WORK}
    delays: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder,
        Fleet(Path(folder), workers=1, simulator=["--zero-work"], settings={"log.level": "warning"}) as fleet,
        rivals(Path(folder)) as urls,
        elsewhere() as other,
    ):
        fleet.request("POST", "/api/v1/queue/pause", {})
        workflow = a_workflow(fleet)
        ports = {name: urlsplit(url).port or 0 for name, url in {"ours": fleet.url, **urls}.items()}
        for number in range(rounds + 1):
            pictures = [a_picture(fleet, Path(folder)) for _ in range(WORK["new picture"][0] // share)]
            check_caching(fleet, pictures[0])
            for what, (count, connections, status) in WORK.items():
                for name in sorted(ports, reverse=number % 2 == 1):
                    asked = requests(what, name == "ours", count // share, workflow, pictures)
                    try:
                        found: Visit = other.submit(visit, ports[name], asked, connections).result()
                    except OSError as e:
                        raise SystemExit(f"bench: {name} broke off {what}: {e}") from e
                    if found.statuses != {status: len(asked)}:
                        raise SystemExit(f"bench: {name} answered {what} with {dict(found.statuses)}")
                    if number:  # the first round warms up
                        rates[what].setdefault(name, []).append(found.rate)
            idle = other.submit(visit, ports["ours"], [Request("GET", "/healthz")] * (600 // share), 1).result()
            delays.append(sorted(idle.delays_ms)[-max(1, len(idle.delays_ms) // 100)])
    for what, found_of in rates.items():
        told = ", ".join(f"{name} {statistics.median(found):,.0f}/s" for name, found in found_of.items())
        print(f"http: {what}: {told}")
        for name in urls:
            ratios = [ours / theirs for ours, theirs in zip(found_of["ours"], found_of[name], strict=True)]
            yield Samples(ratios).figure(f"{what} / {NAMES[name]}", "ratio", GOALS[name], ">=")
    yield Samples(delays).figure("an answer on a kept connection, idle p99", "ms", 2.0, "<=")


@contextlib.contextmanager
def rivals(folder: Path) -> Iterator[dict[str, str]]:
    """The other servers, by name, as far as they are installed."""
    names = ["bare"]
    if importlib.util.find_spec("fastapi") and importlib.util.find_spec("uvicorn"):
        names.append("fast")
    else:
        print("http: FastAPI is left out; scripts/setup bench installs it")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    children = {
        name: Process(name, [sys.executable, "-m", f"scripts.rivals.{name}", str(folder)], folder, environ)
        for name in names
    }
    try:
        yield {name: child.ready().split()[1] for name, child in children.items()}
    finally:
        for child in children.values():
            child.kill()


def requests(what: str, ours: bool, count: int, workflow: Any, pictures: list[str]) -> list[Request]:
    if what == "JSON POST":
        # One key too many: read whole, and refused without a word to the broker.
        body = json.dumps({"workflow": workflow, "colour": "blue"}).encode()
        return [Request("POST", "/api/v1/jobs" if ours else "/check", body)] * count
    if what == "durable POST":
        path = "/api/v1/jobs" if ours else "/keep"
        bodies = [{"workflow": {**workflow, "3": seeded(workflow["3"])}} for _ in range(count)]
        return [Request("POST", path, json.dumps(body).encode()) for body in bodies]
    paths = [f"/api/v1/files/{name}" if ours else f"/pictures/{name}" for name in pictures]
    return [Request("GET", path) for path in (paths if what == "new picture" else paths[:1] * count)]


def a_workflow(fleet: Fleet) -> Any:
    """What the template of pictures makes of a long prompt: 2 KB."""
    asked = {"template": "text-to-image", "params": {"prompt": "a lighthouse at dusk, " + "very detailed, " * 60}}
    job = fleet.request("POST", "/api/v1/jobs", asked)
    return fleet.request("GET", f"/api/v1/jobs/{job['id']}")["workflow"]


def seeded(node: Any) -> Any:
    return {**node, "inputs": {**node["inputs"], "seed": random.getrandbits(50)}}


def a_picture(fleet: Fleet, folder: Path) -> str:
    """A new one, stored in the fleet and for the rivals; its name with all of them."""
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack("!IIBBBBBI", 1_024, 1_024, 8, 2, 0, 0, 0, 0)
    data = head + random.randbytes(PICTURE_BYTES) + b"IEND\xaeB`\x82"
    asked = urllib.request.Request(f"{fleet.url}/api/v1/uploads", data, {"Content-Type": "image/png"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        name: str = json.loads(answer.read())["sha256"]
    (folder / name).write_bytes(data)
    return name


def check_caching(fleet: Fleet, name: str) -> None:
    """What is fast because nobody asks twice has to say so: a tag, for ever, and parts of it."""
    url = f"{fleet.url}/api/v1/files/{name}"
    asked = urllib.request.Request(url, headers={"Range": "bytes=8-15"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        whole, part, headers = (answer.status, answer.read(), answer.headers)
    if (whole, part) != (206, b"\0\0\0\rIHDR") or "immutable" not in headers["Cache-Control"]:
        raise SystemExit(f"bench: a part of a picture came as {whole} {part!r}, {headers['Cache-Control']}")
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers={"If-None-Match": headers["ETag"]}), timeout=30)
    except urllib.error.HTTPError as e:
        if e.code == 304:
            return
    raise SystemExit("bench: a picture that a browser has is sent again")
