"""How soon a page is there: the first contentful paint of the studio and the gallery, with 2,000 jobs in them and
nothing kept from an earlier visit, beside a page of one line from a bare pywsgi; and what the scripts of each page
weigh as they are served, by gzip. How smooth the gallery stays: the longest task of Chromium's main thread in a
recorded trace, while a person scrolls through 2,000 jobs, to the oldest and back, and twenty more are being made.
Processor time is what the task itself used; the wall's time has the rest of the machine in it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.figures import Figure, Samples
from scripts.fleet import Fleet
from scripts.paint import paints, scripts_weigh
from scripts.tab import Tab, tab

#: Of it come the tasks, and what they are made of.
CATEGORIES = ("disabled-by-default-devtools.timeline",)
STREAMED = 20
#: Of the jobs scrolled through, one in so many has a picture as heavy as a photograph; the others are plain.
HEAVY_EVERY = 20
#: Pixels of a notch of the wheel, seconds between notches, and how far: down to the oldest as fast as a wheel turns, a
#: stretch back at the pace of one who looks at pictures, and up.
RIDES = ((600, 0.03, math.inf), (-120, 0.1, 12_000), (-400, 0.03, math.inf))
#: Generous: most of it is other work on the machine.
SCROLL_S, STREAM_S = 180.0, 60.0
GOAL_MS = 50.0
#: Every picture on the screen is there.
SETTLED = """[...document.querySelectorAll(".shot[data-state=succeeded] .mat")].every((mat) => {
  const { top, bottom } = mat.getBoundingClientRect();
  const image = mat.querySelector("img");
  return bottom < 0 || top > innerHeight || (image.complete && image.naturalWidth > 0);
})"""


def measure(*, quick: bool) -> Iterator[Figure]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise SystemExit("bench: the suite `page` needs Chromium: install it, or name the other suites")
    jobs, workers, rounds, visits = (110, 2, 1, 1) if quick else (2_000, STREAMED, 5, 25)
    with (
        tempfile.TemporaryDirectory(prefix="comfyfleet-bench-", ignore_cleanup_errors=True) as folder,
        Fleet(Path(folder), workers=workers, simulator=["--step-s", "0.5"], settings={"log.level": "warning"}) as fleet,
    ):
        seed(fleet, jobs)
        with tab(found, Path(folder, "profile"), "about:blank", width=1440, height=900) as page:
            yield from paints(page, fleet.url, visits)
            yield from scripts_weigh(page, fleet.url)
        # Where nothing is judged others may use the machine: beside them, who yields to everybody gets nothing.
        for process in fleet.processes.values() if not quick else ():
            yield_to_others(process.child.pid)
        walls, used = [], []
        for number in range(rounds):
            profile = Path(folder, f"profile-{number}")
            with tab(found, profile, f"{fleet.url}/gallery", width=1440, height=900) as page:
                tasks = scrolled(page, fleet, jobs, workers)
            walls.append(max(task["dur"] for task in tasks) / 1_000)
            used.append(max(task["tdur"] for task in tasks) / 1_000)
    yield Samples(used).figure("gallery: longest task, processor time", "ms", GOAL_MS, "<=")
    yield Samples(walls).figure("gallery: longest task, wall time", "ms", GOAL_MS, "<=")


def yield_to_others(pid: int) -> None:
    """The fleet's machines are not the one that the page is looked at with: its threads get what the page leaves."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))


def scrolled(tab: Tab, fleet: Fleet, jobs: int, workers: int) -> list[Any]:
    """The tasks of the page while it is scrolled through."""
    tab.wait("document.getElementById('link')?.dataset.link === 'live'")
    asked = {"template": "text-to-image", "params": {"prompt": "streamed", "steps": 150}}
    # Two for each worker: when one is over the next streams.
    streamed = [
        fleet.request("POST", "/api/v1/jobs", {**asked, "pin": f"worker-{number}"})["id"]
        for number in (*range(1, workers + 1), *range(1, workers + 1))
    ]
    until = time.monotonic() + STREAM_S
    while stepping(fleet) < workers:
        if time.monotonic() > until:
            raise SystemExit(f"bench: after {STREAM_S:g} s not all of {workers} jobs report their steps")
        time.sleep(0.2)
    began = time.monotonic()
    tab.trace(CATEGORIES)
    for notch, pause_s, far in RIDES:
        scroll(tab, notch, pause_s, far)
        tab.wait(SETTLED)
        if notch > 0:
            deep = tab.value("scrollY")
    tasks = main_thread_tasks(tab.traced())
    spent, load = time.monotonic() - began, os.getloadavg()[0]
    longest = max(task["dur"] for task in tasks) / 1_000
    print(
        f"page: {jobs} jobs, {deep:,.0f} pixels down and up in {spent:.1f} s, {len(tasks)} tasks, the longest "
        f"{longest:.1f} ms, {stepping(fleet)} jobs still streaming, load {load:.1f}"
    )
    for job in streamed:
        # Refused where it is over by now.
        with contextlib.suppress(urllib.error.HTTPError):
            fleet.request("DELETE", f"/api/v1/jobs/{job}")
    return tasks


def stepping(fleet: Fleet) -> int:
    """How many jobs report their steps."""
    running = fleet.request("GET", "/api/v1/jobs?state=running&limit=100")["jobs"]
    return sum(1 for job in running if job["progress"] and job["progress"]["value"] > 0)


def title(number: int) -> str:
    return f"picture {number} of a long series"


def seed(fleet: Fleet, count: int) -> None:
    """Finished jobs with pictures of 1024 x 1024, no two alike."""
    photograph = upload(fleet, noise())
    for number in range(count):
        blank = {"width": 1024, "height": 1024, "batch_size": 1, "color": number * 6_151 % (1 << 24)}
        made = {"class_type": "EmptyImage", "inputs": blank}
        if number % HEAVY_EVERY == 0:
            made = {"class_type": "LoadImage", "inputs": {"image": photograph}}
        saved = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"p{number}"}}
        asked = {"workflow": {"1": made, "2": saved}, "title": title(number)}
        fleet.request("POST", "/api/v1/jobs", asked)
    while live := fleet.request("GET", "/api/v1/jobs?state=queued,leased,running&limit=1")["jobs"]:
        fleet.wait(live[0]["id"], within_s=600)


def noise() -> bytes:
    """A PNG of some two megabytes."""
    from PIL import Image

    data = io.BytesIO()
    Image.frombytes("RGB", (256, 256), os.urandom(3 << 16)).resize((1024, 1024)).save(data, "PNG")
    return data.getvalue()


def upload(fleet: Fleet, picture: bytes) -> str:
    request = urllib.request.Request(f"{fleet.url}/api/v1/uploads", picture, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.loads(answer.read())["name"])


def scroll(tab: Tab, notch: int, pause_s: float, far: float) -> None:
    """Turn the wheel so far, or until there is no more of the page that way."""
    oldest = f"document.querySelector('#shots > :last-child h2').textContent === {json.dumps(title(0))}"
    bottom = f"{oldest} && scrollY + innerHeight >= document.body.scrollHeight - 1"
    over = bottom if notch > 0 else "scrollY === 0"
    until, turned = time.monotonic() + SCROLL_S, 0
    while turned < far and not tab.value(over):
        if time.monotonic() > until:
            raise SystemExit(f"bench: the gallery was not scrolled through within {SCROLL_S:g} s")
        tab.wheel(notch)
        turned += abs(notch)
        time.sleep(pause_s)


def main_thread_tasks(trace: Any) -> list[Any]:
    """The tasks of the page's own thread. Source: the trace event format; `tdur` is the thread's processor time, µs."""
    events = trace["traceEvents"]
    named = [event for event in events if event.get("name") == "thread_name"]
    mains = {(one["pid"], one["tid"]) for one in named if one["args"]["name"] == "CrRendererMain"}
    runs = [event for event in events if event.get("name") == "RunTask" and event.get("ph") == "X"]
    return [event for event in runs if (event["pid"], event["tid"]) in mains and "tdur" in event]
