"""Which job may go before the one whose turn it is, so that fewer models are loaded. Pure.

Asked when the job's worker would have to load models. Another job goes first if that worker holds its models; else, if
more work waits for its models than for these, for each worker that holds them once they are loaded here. A load for
which much waits is worth more than one for which little does, and a third worker with the same models more than a
second one only while enough waits for three. What has waited long is worth more than what has just come.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from broker.core.backlog import Group, Kind, Models
from broker.core.leases import Leases
from broker.core.placement import Candidate
from broker.core.rooms import Rooms, Stand
from broker.core.rules import Now
from broker.protocol.records import Why

#: Sets of models looked at.
SETS: Final = 32
#: For how long, in loads, a job is passed over for the sake of loaded models from the first time on.
LOADS: Final = 8
#: How far, in loads, another owner's share may be ahead when a job of theirs goes first because its models are there.
AHEAD: Final = 2
#: The part of a job's wait that counts like work that waits for its models.
AGE: Final = 0.2


class Rivals:
    def __init__(self, leases: Leases, rooms: Rooms) -> None:
        self._leases = leases
        self._rooms = rooms
        self._estimates = leases.estimates

    def of(self, group: Group, chosen: Candidate, now: Now) -> tuple[Group, Why] | None:
        """The group whose first job goes to that worker before this one's, and why; None when none may."""
        stand = self._rooms.stand(chosen.worker)
        if stand is None:
            return None
        for models in stand.sets:
            best = self._first(group, models, stand, chosen, now)
            if best is not None:
                return best, Why.HOLDS_MODELS
        worthier, most_ms = None, self._worth_ms(group, chosen, now)
        for models in list(islice(self._leases.jobs.backlog.waiting_for, SETS)):
            if models and models != group.key.models:
                best = self._first(group, models, stand, chosen, now)
                if best is not None and (worth_ms := self._worth_ms(best, chosen, now)) > most_ms:
                    worthier, most_ms = best, worth_ms
        return None if worthier is None else (worthier, Why.MOST_WAITS)

    def may_overtake(self, group: Group, other: Group, kind: Kind, load_ms: float, now: Now) -> bool:
        """Whether a job of the other group may go before this one's first to a worker of that kind, where a load of so
        long is in its way."""
        backlog = self._leases.jobs.backlog
        urgency, theirs = (backlog.urgency(one, kind) for one in (group, other))
        in_time = group.overtaken_ms is None or now.mono_ms - group.overtaken_ms <= LOADS * load_ms
        if group.key.owner == other.key.owner and theirs[2] > urgency[2]:
            return False  # its deadline is nearer
        return in_time and theirs[0] <= urgency[0] and theirs[1] - urgency[1] <= AHEAD * load_ms

    def _first(self, group: Group, models: Models, stand: Stand, chosen: Candidate, now: Now) -> Group | None:
        """Of the groups that need these models the first that may go before this one on that worker."""
        serves, backlog = self._leases.roster.serves, self._leases.jobs.backlog
        for other in backlog.with_models(models):
            here = other.key.pin in ("", chosen.worker) and serves(stand.kind, other.key)
            if other is not group and here and self.may_overtake(group, other, stand.kind, chosen.load_ms, now):
                return other
        return None

    def _worth_ms(self, group: Group, chosen: Candidate, now: Now) -> float:
        """What there would be to run for that worker once it had loaded the group's models, if all who hold them share
        what waits for them; and how long the first job has waited."""
        models, backlog = group.key.models, self._leases.jobs.backlog
        record = self._leases.jobs.live[backlog.first_of(group)[2]].record
        waits_ms = backlog.waiting_for[models] * self._estimates.run_ms(record.needs, chosen.worker)
        load_ms = sum(self._estimates.load_ms(model, chosen.worker) for model in models)
        holders = self._rooms.holders(models)
        return (waits_ms - holders * load_ms) / (holders + 1) + AGE * (now.utc_ms - record.created_utc_ms)
