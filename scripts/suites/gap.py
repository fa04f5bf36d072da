"""How long a card stands still between two prompts of a worker that always has another job, by its ComfyUI's clock:
pictures of 4 MB, prompts of 100 ms and of 5 s, prefetch 1 and 0, and a line to the broker that adds nothing or 40 ms to
each round trip; beside the same prompts queued straight. Each way has a card of its own. Short prompts take turns, long
ones run side by side: a card at work needs none of this machine's time. With --comfyui, on that ComfyUI as well, where
what is made is noise, by turns on its one card."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from broker.protocol.ids import prompt_id_for
from comfyui.replies import SystemStats, system_stats
from comfyui.simulator.journal import read_journal
from scripts.clients import Api
from scripts.figures import Figure, Samples
from scripts.fleet import Fleet
from scripts.relay import Relay

#: Number of the worker, and of its card -> its prefetch, and what its line adds each way, in ms.
WORKERS: Final = {1: (1, 0.0), 2: (0, 0.0), 3: (1, 20.0), 4: (0, 20.0)}
#: The card that prompts are queued at straight.
STRAIGHT: Final = 5
#: A step takes 20 ms for a megapixel, decoding twice as long; the model is there at once. Its pictures cost the
#: processors nothing: a card draws them with its own.
SIMULATOR: Final = (
    "--step-s", "0.02", "--load-s", "0", "--flat", "--no-stall-fault",
    "--mischief", json.dumps({"kind": "huge", "times": None, "bytes": 4_000_000}),
)  # fmt: skip
SHORT: Final = {"steps": 3, "size": "1024x1024"}
#: Of 80 ms a step.
LONG: Final = {"size": "2048x2048"}
GOAL_MS: Final = 2.0
#: The gaps of each card, in ms, by rounds.
Rounds = dict[int, list[list[float]]]


def measure(*, quick: bool) -> Iterator[Figure]:
    rounds, prompts, long_s, steps = (1, 3, 0.5, 4) if quick else (9, 12, 5.0, 60)
    settings = {"log.level": "warning"}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyfleet-bench-")))
        fleet = stack.enter_context(Fleet(folder, workers=0, simulator=SIMULATOR, settings=settings))
        for number in (*WORKERS, STRAIGHT):
            fleet.start_simulator(number)
        for number, (prefetch, delay_ms) in WORKERS.items():
            fleet.start_worker(number, {"broker.prefetch": str(prefetch), **lengthened(stack, fleet, delay_ms)})
        fleet.await_abilities()
        cards = Cards(fleet)
        by_turns(cards, SHORT, 1, 2)
        print(f"gap: pictures of {cards.picture_bytes() / 1e6:.1f} MB")
        yield from judged("prompts of 0.1 s", by_turns(cards, SHORT, rounds, prompts))
        yield from judged(f"prompts of {long_s:g} s", side_by_side(cards, {**LONG, "steps": steps}, prompts, long_s))


def lengthened(stack: contextlib.ExitStack, fleet: Fleet, delay_ms: float) -> dict[str, str]:
    """Settings of a worker whose line to the broker is so long."""
    found = {}
    for name in ("workers", "files") if delay_ms else ():
        port = int(fleet.endpoint(name).rsplit(":", 1)[1])
        relay = stack.enter_context(Relay(port, delay_ms=delay_ms))
        found[f"network.{name}"] = f"tcp://127.0.0.1:{relay.port}"
    return found


class Cards:
    """What prompts are given to: workers, and a ComfyUI that has none."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._straight = Api(fleet.comfyuis[STRAIGHT - 1])
        self._seeds = itertools.count(1)
        #: The workflow of what a worker ran last, and the jobs that are under way.
        self._graph: dict[str, Any] = {}
        self._jobs: dict[int, list[str]] = {}

    def begin(self, number: int, params: Mapping[str, Any], prompts: int) -> None:
        """Give it so many at once; one that has no worker gets what a worker got last."""
        if number == STRAIGHT:
            for _ in range(prompts):
                self._straight.call("POST", "/prompt", {"prompt": seeded(self._graph, next(self._seeds))})
            return
        body = {"template": "text-to-image", "params": {"prompt": "a lake", **params}, "pin": f"worker-{number}"}
        self._jobs[number] = [self._fleet.request("POST", "/api/v1/jobs", body)["id"] for _ in range(prompts)]
        self._graph = self._fleet.request("GET", f"/api/v1/jobs/{self._jobs[number][0]}")["workflow"]

    def picture_bytes(self) -> int:
        """What a worker made last."""
        [newest] = self._fleet.request("GET", "/api/v1/jobs?limit=1")["jobs"]
        [picture] = self._fleet.request("GET", f"/api/v1/jobs/{newest['id']}")["outputs"]
        return int(picture["size_bytes"])

    def gaps(self, number: int, prompts: int) -> list[float]:
        """Milliseconds from the end of each prompt to the start of the next, once all that were begun are over."""
        for job_id in self._jobs.pop(number, ()):
            succeeded(self._fleet.wait(job_id, within_s=240))
        if number == STRAIGHT:
            emptied(self._straight)
        journal = read_journal(self._fleet.folder / f"simulator-{number}.jsonl")
        begun, ended = ([one["mono_ms"] for one in journal if one["at"] == at] for at in ("started", "finished"))
        return between(list(zip(begun, ended, strict=True))[-prompts:])


def by_turns(cards: Cards, params: Mapping[str, Any], rounds: int, prompts: int) -> Rounds:
    found: Rounds = {number: [] for number in (*WORKERS, STRAIGHT)}
    for turn in range(rounds):
        for number in found if turn % 2 == 0 else reversed(found):
            cards.begin(number, params, prompts)
            found[number].append(cards.gaps(number, prompts))
    return found


def side_by_side(cards: Cards, params: Mapping[str, Any], prompts: int, each_s: float) -> Rounds:
    """Each gap is a round of its own. The cards begin apart, so that they do not change prompts at the same time."""
    numbers = (*WORKERS, STRAIGHT)
    for number in numbers:
        cards.begin(number, params, prompts)
        time.sleep(each_s / len(numbers))
    return {number: [[gap] for gap in cards.gaps(number, prompts)] for number in numbers}


def judged(what: str, found: Rounds) -> Iterator[Figure]:
    all_of = {number: [*itertools.chain(*rounds)] for number, rounds in found.items()}
    for number, (prefetch, delay_ms) in WORKERS.items():
        gap_ms = statistics.median(all_of[number])
        print(f"gap: {what}, {2 * delay_ms:g} ms of line, prefetch {prefetch}: {gap_ms:.2f} ms")
    for ahead, none in ((1, 2), (3, 4)):
        line = f"{what}, {2 * WORKERS[ahead][1]:g} ms of line"
        yield Samples(all_of[ahead]).figure(f"gap at prefetch 1: {line}", "ms", GOAL_MS, "<=")
        medians = [[statistics.median(gaps) for gaps in found[number]] for number in (none, ahead)]
        yield Samples.ratios(*medians).figure(f"gap at prefetch 0 / at 1: {line}", "ratio", 1.0, ">=")
    yield Samples(all_of[STRAIGHT]).figure(f"gap of the same queued straight: {what}", "ms", None, "<=")


def between(spans: Sequence[tuple[float, float]]) -> list[float]:
    """From each end to the next beginning."""
    return [start - end for (_, end), (start, _) in itertools.pairwise(spans)]


def succeeded(job: Any) -> None:
    if job["state"] != "succeeded":
        raise SystemExit(f"bench: a job {job['state']}: {job['error']}")


def emptied(api: Api) -> None:
    """Wait until ComfyUI has nothing more to do."""
    while json.loads(api.call("GET", "/prompt"))["exec_info"]["queue_remaining"]:
        time.sleep(0.1)


def seeded(graph: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The same, to be made anew."""
    return {
        key: {**node, "inputs": {**node["inputs"], **({"seed": seed} if "seed" in node["inputs"] else {})}}
        for key, node in graph.items()
    }


# ---- a ComfyUI that runs already


def real(url: str, *, rounds: int = 5, prompts: int = 12) -> Iterator[Figure]:
    """By its own clock. Nothing else should use it meanwhile."""
    found: dict[str, list[list[float]]] = {"1": [], "0": [], "straight": []}
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(contextlib.closing(Api(url)))
        name = called(system_stats(api.call("GET", "/system_stats")))
        print(f"gap: {name}")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyfleet-bench-")))
        fleet = stack.enter_context(Fleet(folder, comfyuis=[url], settings={"log.level": "warning"}))
        workflows = (noise(seed) for seed in itertools.count(time.time_ns() // 1_000_000))
        for _ in range(rounds):
            for way, rounds_of in found.items():
                asked = list(itertools.islice(workflows, prompts))
                if way == "straight":
                    ids = queued(api, asked)
                else:
                    fleet.restart_worker(1, {"broker.prefetch": way})
                    ids = through(fleet, asked)
                rounds_of.append(between(sorted(span(api, prompt_id) for prompt_id in ids)))
    for way, what in {"1": "gap at prefetch 1", "0": "gap at prefetch 0", "straight": "gap, queued straight"}.items():
        goal = GOAL_MS if way == "1" else None
        yield Samples([*itertools.chain(*found[way])]).figure(f"{what}: {name}", "ms", goal, "<=")


def called(stats: SystemStats) -> str:
    device = stats.devices[0]
    on = device.type if device.type == device.name else f"{device.type} {device.name}"
    return f"ComfyUI {stats.version_text} on {on}"


def noise(seed: int) -> dict[str, Any]:
    """A picture of some 4 MB, without a model, that was never made before."""
    blank = {"width": 1152, "height": 1152, "batch_size": 1, "color": 0x808080}
    return {
        "1": {"class_type": "EmptyImage", "inputs": blank},
        "2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": seed, "strength": 0.3}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "bench"}},
    }


def through(fleet: Fleet, workflows: Sequence[Any]) -> list[str]:
    """What ComfyUI called them, once they are over."""
    sent = [fleet.request("POST", "/api/v1/jobs", {"workflow": workflow})["id"] for workflow in workflows]
    for job_id in sent:
        succeeded(fleet.wait(job_id, within_s=240))
    return [prompt_id_for(job_id, 1) for job_id in sent]


def queued(api: Api, workflows: Sequence[Any]) -> list[str]:
    """The same, in ComfyUI's own queue."""
    asked = [json.loads(api.call("POST", "/prompt", {"prompt": workflow}))["prompt_id"] for workflow in workflows]
    emptied(api)
    return asked


def span(api: Api, prompt_id: str) -> tuple[float, float]:
    """When it began and ended, in ms, by ComfyUI's clock."""
    entry = json.loads(api.call("GET", f"/history/{prompt_id}"))[prompt_id]
    said = dict(entry["status"]["messages"])
    return said["execution_start"]["timestamp"], said["execution_success"]["timestamp"]
