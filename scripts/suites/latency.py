"""What an idle fleet adds to a job, durable commits included, beside the same straight to the same ComfyUI stand-in,
which does no work."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from broker.protocol.ids import prompt_id_for
from comfyui.simulator.journal import read_journal
from scripts.clients import Direct, Through, pictures
from scripts.figures import Figure, Samples
from scripts.fleet import Fleet

WARM_UP = 10


def measure(*, quick: bool) -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder,
        Fleet(Path(folder), workers=1, simulator=["--zero-work"], settings={"log.level": "warning"}) as fleet,
    ):
        direct, through = Direct(fleet.comfyuis[0]), Through(fleet.url)
        sides = [("direct", direct), ("through", through)]
        workflows = pictures()
        #: Of each job: submit, picture, in ms of the monotonic clock, and what ComfyUI called it.
        times: dict[str, list[tuple[float, float, str]]] = {"direct": [], "through": []}
        for number in range(WARM_UP + (20 if quick else 300)):
            for name, side in sides if number % 2 else reversed(sides):
                began = time.monotonic_ns() / 1e6
                found = side.run(next(workflows))
                prompt_id = found if name == "direct" else prompt_id_for(found, 1)
                times[name].append((began, time.monotonic_ns() / 1e6, prompt_id))
        for _, side in sides:
            side.close()
        journal = read_journal(Path(folder) / "simulator-1.jsonl")
    received = {line["prompt_id"]: line["mono_ms"] for line in journal if line["at"] == "received"}
    finished = {line["prompt_id"]: line["mono_ms"] for line in journal if line["at"] == "finished"}

    def added(parts: dict[str, list[float]]) -> Samples:
        pairs = zip(parts["through"][WARM_UP:], parts["direct"][WARM_UP:], strict=True)
        return Samples([mine - theirs for mine, theirs in pairs])

    whole = {name: [end - began for began, end, _ in jobs] for name, jobs in times.items()}
    before = {name: [received[found] - began for began, _, found in jobs] for name, jobs in times.items()}
    after = {name: [end - finished[found] for _, end, found in jobs] for name, jobs in times.items()}
    p50 = {name: statistics.median(values[WARM_UP:]) for name, values in whole.items()}
    print(f"latency: direct p50 {p50['direct']:.2f} ms, through the fleet p50 {p50['through']:.2f} ms")
    yield added(whole).figure("added: submit to picture, idle p50", "ms", 8.0, "<=")
    yield added(before).figure("added: submit to /prompt, idle p50", "ms", 5.0, "<=")
    yield added(after).figure("added: finished to picture, idle p50", "ms", 10.0, "<=")
