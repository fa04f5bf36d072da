"""One verb for many jobs: each is done or refused on its own, and the answer says which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bottle import HTTPResponse
from gevent.pool import Pool

from web.answers import Refusal, answered
from web.api import jobs
from web.api.site import Call
from web.link import BrokerRefused, BrokerSilent

MAX_IDS: Final = 200
#: Requests to the broker under way at once: those of one turn share its commit.
_AT_ONCE: Final = 16
VERBS: Final[Mapping[str, Callable[[Call, str], Any]]] = {
    "cancel": jobs.cancelled,
    "retry": jobs.retried,
    "delete": jobs.deleted,
}


def post(call: Call) -> HTTPResponse:
    """POST /api/v1/jobs/bulk"""
    body = call.json()
    verb = body.get("verb")
    if body.keys() != {"verb", "ids"} or not isinstance(verb, str) or verb not in VERBS:
        raise Refusal(422, "bad_bulk", f'want {{"verb": one of {", ".join(VERBS)}, "ids": [job ids]}}')
    ids = job_ids(body["ids"])
    refusals = Pool(_AT_ONCE).map(lambda job_id: _refusal(call, VERBS[verb], job_id), ids)
    told = dict(zip(ids, refusals, strict=True))
    return answered(
        {
            "done": [job_id for job_id, refusal in told.items() if refusal is None],
            "refused": [
                {"id": job_id, "code": refusal.code, "message": refusal.message}
                for job_id, refusal in told.items()
                if refusal is not None
            ],
        }
    )


def job_ids(given: object) -> list[str]:
    """The ids of a request, each once. Raises Refusal for anything but a list of a few texts."""
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_IDS or not all(isinstance(id_, str) for id_ in given):
        raise Refusal(422, "bad_ids", f"ids is a list of 1 to {MAX_IDS} job ids")
    return list(dict.fromkeys(given))


def _refusal(call: Call, verb: Callable[[Call, str], Any], job_id: str) -> Refusal | None:
    """Why the verb was not done to this job; None when it was."""
    try:
        verb(call, job_id)
    except Refusal as e:
        return e
    except BrokerRefused as e:
        return Refusal(409, e.error.code, e.error.text)
    except BrokerSilent as e:
        return Refusal(503, "broker_away", f"{e}; it may or may not have been done")
    return None
