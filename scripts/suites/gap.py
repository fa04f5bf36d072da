"""How long a card stands still between two prompts of a worker that always has another job, by the stand-in's own
clock, beside the same prompts queued straight at it: pictures of megabytes, prefetch 1 and 0, and a line to the broker
that adds 40 ms to each round trip."""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broker.protocol.ids import prompt_id_for
from comfyui.simulator.journal import read_journal
from scripts.clients import Api, pictures
from scripts.figures import Figure, Samples
from scripts.fleet import Fleet
from scripts.relay import Relay

#: Each way.
DELAY_MS = 20.0


def measure(*, quick: bool) -> Iterator[Figure]:
    for step_s in (0.02,) if quick else (0.1, 5.0):
        for delay_ms in (0.0,) if quick else (0.0, DELAY_MS):
            line = f"steps of {step_s:g} s, {2 * delay_ms:g} ms of line"
            through, direct = gaps(step_s, 1, delay_ms, quick=quick)
            unfetched, _ = gaps(step_s, 0, delay_ms, quick=quick)
            added = [gap - statistics.median(direct) for gap in through]
            yield Samples(added).figure(f"gap added at prefetch 1: {line}", "ms", 2.0, "<=")
            ratio = statistics.median(unfetched) / max(0.01, statistics.median(through))
            yield Figure(f"gap at prefetch 0 / at 1: {line}", ratio, "ratio", 1.0, ">=")


def real(url: str, *, jobs: int = 30) -> Iterator[Figure]:
    """The same on a ComfyUI that runs already, by its own clock: jobs through the fleet beside prompts that wait in its
    own queue, without a model."""
    workflows = pictures(1536, 1536)
    settings = {"log.level": "warning"}
    added: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder,
        Fleet(Path(folder), comfyuis=[url], settings=settings) as fleet,
    ):
        api = Api(url)
        for _ in range(5):
            sent = [fleet.request("POST", "/api/v1/jobs", {"workflow": next(workflows)}) for _ in range(jobs)]
            for job in sent:
                fleet.wait(job["id"], within_s=240)
            through = _pauses(api, [prompt_id_for(job["id"], 1) for job in sent])
            asked = [api.call("POST", "/prompt", {"prompt": next(workflows)}) for _ in range(jobs)]
            own = [json.loads(answer)["prompt_id"] for answer in asked]
            while json.loads(api.call("GET", "/queue"))["queue_pending"] or not _history(api, own[-1]):
                time.sleep(0.1)
            straight = _pauses(api, own)
            gap_ms, own_ms = statistics.median(through), statistics.median(straight)
            print(f"gap: a real ComfyUI, through the fleet {gap_ms:.1f} ms, straight {own_ms:.1f} ms")
            added.append(gap_ms - own_ms)
        api.close()
    yield Samples(added).figure("gap added at prefetch 1: a real ComfyUI, without a model", "ms", 2.0, "<=")


def _pauses(api: Api, prompt_ids: list[str]) -> list[float]:
    """Milliseconds from the end of each prompt to the start of the next, by ComfyUI's clock."""
    spans = []
    for prompt_id in prompt_ids:
        said = dict(_history(api, prompt_id)["status"]["messages"])
        spans.append((said["execution_start"]["timestamp"], said["execution_success"]["timestamp"]))
    spans.sort()
    return [start - end for (_, end), (start, _) in itertools.pairwise(spans)]


def _history(api: Api, prompt_id: str) -> Any:
    return json.loads(api.call("GET", f"/history/{prompt_id}")).get(prompt_id)


def gaps(step_s: float, prefetch: int, delay_ms: float, *, quick: bool) -> tuple[list[float], list[float]]:
    """Milliseconds from the end of each prompt to the start of the next: through the fleet, and straight."""
    jobs = 4 if quick else 6 if step_s > 1 else 16
    simulator = ["--step-s", str(step_s), "--load-s", "0", "--vram-bytes", str(96 << 30), "--no-stall-fault"]
    settings = {"log.level": "warning", "broker.prefetch": str(prefetch)}
    with (
        tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder,
        Fleet(Path(folder), workers=1, simulator=simulator, settings=settings) as fleet,
    ):
        lines = [Relay(int(fleet.endpoint(name).rsplit(":", 1)[1]), delay_ms=delay_ms) for name in ("workers", "files")]
        with lines[0] as workers, lines[1] as files:
            if delay_ms:
                fleet.reroute_worker(1, workers=workers.port, files=files.port)
            through(fleet, jobs, batch=1 if quick else 8)
        found = [between(Path(folder))]
        straight(fleet, Path(folder), jobs)
        found.append(between(Path(folder))[-jobs + 1 :])
    # The first prompt of all finds an empty queue and loads the model.
    return found[0][1:], found[1]


def through(fleet: Fleet, jobs: int, *, batch: int) -> None:
    params = {"prompt": "a lake", "steps": 1, "batch": batch, "size": "1536x1536"}
    body = {"template": "text-to-image", "params": params}
    sent = [fleet.request("POST", "/api/v1/jobs", body) for _ in range(jobs)]
    ended = [fleet.wait(job["id"], within_s=240) for job in sent]
    failed = [job["error"] for job in ended if job["state"] != "succeeded"]
    if failed:
        raise SystemExit(f"bench: a job failed: {failed[0]}")
    size = sum(output["size_bytes"] for output in ended[-1]["outputs"])
    print(f"gap: {jobs} jobs of {size / 1e6:.1f} MB")


def straight(fleet: Fleet, folder: Path, jobs: int) -> None:
    """As many of the same prompts, at once in ComfyUI's own queue."""
    newest = fleet.request("GET", "/api/v1/jobs?limit=1")["jobs"][0]
    graph: dict[str, Any] = fleet.request("GET", f"/api/v1/jobs/{newest['id']}")["workflow"]
    before, api = len(between(folder)), Api(fleet.comfyuis[0])
    for number in range(jobs):
        for node in graph.values():
            if "seed" in node["inputs"]:
                node["inputs"]["seed"] = number
        api.call("POST", "/prompt", {"prompt": graph})
    while len(between(folder)) < before + jobs - 1:
        time.sleep(0.1)
    api.close()


def between(folder: Path) -> list[float]:
    journal = read_journal(folder / "simulator-1.jsonl")
    times = {at: [line["mono_ms"] for line in journal if line["at"] == at] for at in ("started", "finished")}
    return [start - end for end, start in zip(times["finished"], times["started"][1:], strict=False)]
