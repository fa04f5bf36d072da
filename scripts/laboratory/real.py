"""The same fleets made of real processes: broker, web, workers and simulators, over the wire (scripts/fleet.py)."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfyui.simulator.cards import Card
from comfyui.simulator.journal import read_journal
from scripts.fleet import Fleet
from scripts.laboratory.traffic import Job, Scenario

#: A release that loads a model again once another one was used: later ones keep the results of loaders, whatever their
#: cards hold. No previews: they cost this machine more than the picture.
SIMULATOR = ("--version", "0.3.64", "--preview-method", "none")
#: A run over the wire that takes longer than this hangs.
LIMIT_S = 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    makespan_s: float
    loads: int
    #: Jobs by worker.
    jobs: dict[str, int]


def run(scenario: Scenario, settings: Mapping[str, str]) -> Real:
    """Submit every job at once, and measure from the first submit to the last result by the broker's own clock."""
    with (
        tempfile.TemporaryDirectory(prefix="comfyfleet-lab-") as folder,
        Fleet(
            Path(folder),
            simulator=SIMULATOR,
            cards=[_flags(card, scenario) for card in scenario.cards],
            settings={"log.level": "warning", **settings},
        ) as fleet,
    ):
        ids = [fleet.request("POST", "/api/v1/jobs", {"workflow": _workflow(job)})["id"] for job in scenario.jobs]
        deadline = time.monotonic() + LIMIT_S
        ended = [fleet.wait(job_id, within_s=max(1.0, deadline - time.monotonic())) for job_id in ids]
        failed = [job for job in ended if job["state"] != "succeeded"]
        if failed:
            raise SystemExit(f"lab: job {failed[0]['id']} {failed[0]['state']}: {failed[0]['error']}")
        journals = [read_journal(path) for path in Path(folder).glob("simulator-*.jsonl")]
    workers = sorted({job["worker"] for job in ended})
    return Real(
        makespan_s=(max(job["finished_ms"] for job in ended) - min(job["created_ms"] for job in ended)) / 1_000,
        loads=sum(entry["at"] == "loads" for journal in journals for entry in journal),
        jobs={worker: sum(job["worker"] == worker for job in ended) for worker in workers},
    )


def _flags(card: Card, scenario: Scenario) -> list[str]:
    models = {model for job in scenario.jobs for model in job.models}
    named = ",".join(sorted(f"{model.name}={model.size_bytes}" for model in models))
    load_s = 7e9 / card.load_bytes_per_s
    figures = ("--vram-bytes", card.vram_bytes, "--step-s", card.step_s, "--load-s", load_s)
    return ["--card", "rtx-4090", "--models", named, *map(str, figures)]


def _workflow(job: Job) -> dict[str, Any]:
    """Text to image, with a seed and words that nothing else has."""
    side = round(job.pixels**0.5)
    checkpoint = job.models[0].name.partition("/")[2]
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        "2": ("CLIPTextEncode", {"text": f"harbour {job.number}", "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": f"fog {job.number}", "clip": ["1", 1]}),
        "4": ("EmptyLatentImage", {"width": side, "height": side, "batch_size": 1}),
        "5": (
            "KSampler",
            {
                "seed": job.number, "steps": job.steps, "cfg": 7, "sampler_name": "euler", "scheduler": "normal",
                "denoise": 1, "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
            },
        ),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "lab"}),
    }  # fmt: skip
    return {key: {"class_type": name, "inputs": inputs} for key, (name, inputs) in nodes.items()}
