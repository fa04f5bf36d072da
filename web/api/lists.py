"""Lists of jobs, newest first, by pages: whatever is asked of them, nobody sees what is not theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bottle import HTTPResponse

from broker.protocol import client
from broker.protocol.records import JobState, JobView
from web import views_json
from web.answers import Refusal, answered
from web.api.site import Call
from web.viewer import may_see
from web.views_json import Json

#: Pages of the broker's asked for one of ours: each is bounded, and those that filters leave empty follow one another.
MAX_ASKED: Final = 10
#: Of what somebody searches for; more is not looked at.
MAX_QUERY_CHARS: Final = 500
#: Jobs whose labels are offered, and how many labels.
MAX_LOOKED_AT: Final = 200
MAX_LABELS: Final = 100
#: What a list may be asked for.
ASKED: Final = ("limit", "after", "state", "template", "label", "group", "since_ms", "until_ms", "owner", "q")


def listing(call: Call) -> HTTPResponse:
    """GET /api/v1/jobs"""
    return answered(found(call, call.query(*ASKED)))


def found(call: Call, query: Mapping[str, str]) -> Json:
    """The page of jobs that the query asks for. Raises Refusal."""
    limit = query.get("limit", "50")
    if not limit.isascii() or not limit.isdecimal() or len(limit) > 3 or not 1 <= int(limit) <= 200:
        raise Refusal(400, "bad_query", "limit is a number from 1 to 200")
    try:
        states = tuple(JobState(word) for word in query["state"].split(",")) if "state" in query else ()
    except ValueError as e:
        raise Refusal(400, "bad_query", f"state is one or more of {', '.join(JobState)}, with commas") from e
    filters = {
        "states": states[:7],
        "template": query.get("template", ""),
        "label": query.get("label", ""),
        "group": query.get("group", ""),
        "since_utc_ms": _time(query, "since_ms"),
        "until_utc_ms": _time(query, "until_ms"),
        "text": query.get("q", "").replace("\0", " ")[:MAX_QUERY_CHARS],
    }
    if "owner" in query:
        if not may_see(call.viewer.scope, query["owner"]):
            raise Refusal(403, "forbidden", "only an admin may list the jobs of others")
        filters["owner"] = query["owner"]
    jobs, after = whole_page(call, int(limit), query.get("after", ""), filters)
    return {"jobs": [views_json.job(job) for job in jobs], "next": after}


def labels(call: Call) -> HTTPResponse:
    """GET /api/v1/labels"""
    call.query()
    return answered(carried(call))


def carried(call: Call) -> Json:
    """What the caller's newest jobs carry, to choose filters from."""
    newest, _ = whole_page(call, MAX_LOOKED_AT, "", {})
    labels = dict.fromkeys(label for job in newest for label in job.labels)
    templates = dict.fromkeys(job.template for job in newest if job.template)
    return {"labels": list(labels)[:MAX_LABELS], "templates": list(templates)}


def whole_page(call: Call, limit: int, after: str, filters: dict[str, Any]) -> tuple[list[JobView], str]:
    """Up to `limit` jobs and the key of the next page, short only when a bounded search found no more."""
    found: list[JobView] = []
    for _ in range(MAX_ASKED):
        asked = listed(call, **filters, after=after, limit=limit - len(found))
        page = call.site.link.ask(client.JobsReply, client.List, **asked)
        found += page.jobs
        after = page.next
        if not after or len(found) == limit:
            break
    return found, after


def members(call: Call, group_id: str) -> list[JobView]:
    """The jobs of a group of the caller's, in their order."""
    found: list[JobView] = []
    after = ""
    while True:
        page = call.site.link.ask(client.JobsReply, client.List, **listed(call, group=group_id, after=after))
        found += page.jobs
        after = page.next
        if not after:
            return found[::-1]


def listed(call: Call, **filters: Any) -> dict[str, Any]:
    """The fields of a List of the jobs that the caller may see, narrowed by these."""
    owner = "" if call.viewer.admin else call.viewer.owner
    everything = {
        "states": (),
        "template": "",
        "label": "",
        "group": "",
        "since_utc_ms": None,
        "until_utc_ms": None,
        "text": "",
    }
    return {"owner": owner, **everything, "after": "", "limit": 200, **filters}


def _time(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "0")
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise Refusal(400, "bad_query", f"{name} is a time in milliseconds since 1970, UTC")
    return int(text) if name in query else None
