"""What the gallery begins with: the first page of what its address asks for, and what can be picked above it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from web.api.lists import carried, found
from web.api.site import Call
from web.link import BrokerSilent
from web.pages import gallery
from web.views_json import Json


def first(call: Call, filters: Mapping[str, str], after: str) -> Json | None:
    """A page of jobs with the span of time it was asked for; None while the broker is silent. Raises Refusal."""
    if not call.site.hub.connected:
        return None  # the page says so at once, and asks again by itself
    since, until = _midnight(filters.get("from", ""), 0), _midnight(filters.get("to", ""), 1)
    asked = {name: value for name, value in filters.items() if name not in ("from", "to")}
    asked |= {name: str(ms) for name, ms in (("since_ms", since), ("until_ms", until)) if ms is not None}
    asked |= {"limit": str(gallery.PAINTED)} | ({"after": after} if after else {})
    try:
        return {**found(call, asked), "span": [since, until]}
    except BrokerSilent:
        return None


def offers(call: Call, *, ask: bool) -> Json:
    """The templates and labels to pick from. ask: whether the broker answers, which alone knows what jobs carry."""
    known = list(call.site.templates)
    try:
        used = carried(call) if ask else {"templates": [], "labels": []}
    except BrokerSilent:
        return {"templates": known, "labels": []}
    return {"templates": list(dict.fromkeys([*used["templates"], *known])), "labels": used["labels"]}


def _midnight(day: str, later: int) -> int | None:
    """The beginning of the day, or of a `later` one, where this server stands: the browser asks again where the person
    is if that is elsewhere."""
    try:
        date = datetime.date.fromisoformat(day) + datetime.timedelta(days=later)
        midnight = datetime.datetime(date.year, date.month, date.day).astimezone()
    except (ValueError, OverflowError):
        return None
    return max(0, int(midnight.timestamp() * 1000))
