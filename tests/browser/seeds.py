"""Many finished jobs in no time, for pages that show lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.fleet import Fleet

#: A simulator that makes a picture as fast as it is asked for one.
INSTANT = ("--zero-work",)


def plain(number: int, *, pictures: int = 1) -> dict[str, Any]:
    """A workflow that makes flat pictures of a colour no other number has."""
    blank = {"width": 64, "height": 48, "batch_size": pictures, "color": number * 40_503 % (1 << 24)}
    return {
        "1": {"class_type": "EmptyImage", "inputs": blank},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"seed-{number}"}},
    }


def made(fleet: Fleet, number: int, **given: Any) -> Any:
    """A job of this number, once it is over."""
    workflow = plain(number, pictures=given.pop("pictures", 1))
    job = fleet.request("POST", "/api/v1/jobs", {"workflow": workflow, "title": f"picture {number}", **given})
    return fleet.wait(job["id"])


def painted(fleet: Fleet, params: Mapping[str, Any], **given: Any) -> Any:
    """A job of the first template, once it is over; with a count, the last of them."""
    asked = {"template": "text-to-image", "params": {"size": "512x512", "steps": 2, **params}, **given}
    answer = fleet.request("POST", "/api/v1/jobs", asked)
    return [fleet.wait(job["id"]) for job in answer.get("jobs", [answer])][-1]


def fill(fleet: Fleet, count: int) -> None:
    """Pictures 0 to count - 1, in this order; every second one is labelled odd, the others even."""
    for number in range(count):
        labels = ["odd" if number % 2 else "even"]
        fleet.request(
            "POST", "/api/v1/jobs", {"workflow": plain(number), "title": f"picture {number}", "labels": labels}
        )
    while live := fleet.request("GET", "/api/v1/jobs?state=queued,leased,running&limit=200")["jobs"]:
        fleet.wait(live[0]["id"])
