"""Hands out work: which job goes next, to which worker, and what is taken back from where it would wait too long.

Called once a turn, after everything that had arrived was heard. Looks at the first jobs of a few lanes and at a few
workers for each (backlog.py, rooms.py), whatever the length of the queue; a policy (placement.py) chooses among those.
What is promised: a job is let wait for a better worker only as long as loading its models elsewhere would take, or its
run there where they are loaded; others go before it for the sake of loaded models only for as long as a few loads take.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from broker.core.backlog import Backlog, Group, Kind, Lane, Wait, group_key
from broker.core.fairness import Fairness
from broker.core.jobs import Job
from broker.core.leases import Leases
from broker.core.placement import POLICIES, Candidate, Choice, Waiting, finish_time
from broker.core.retry import ATTEMPTS_MOST
from broker.core.rivals import Rivals
from broker.core.rooms import Rooms, Stand, Tier, waits
from broker.core.roster import Worker
from broker.core.rules import Now
from broker.core.step import Step
from broker.protocol.records import BreakerState, JobState, Why
from broker.protocol.story import Considered, Decision

#: Jobs looked at in a row that nobody is sent: further ones have to wait for the next turn.
LOOKS: Final = 32
#: Lanes looked at for the jobs that are sent in one turn: where workers are of many kinds the next turn goes on, as
#: messages wait meanwhile.
LANES: Final = 16_000
#: Of the jobs for one kind of worker one in so many goes by its age alone, whatever its priority and whoever's it is.
BY_AGE: Final = 16
#: What waits counts so often when a long job may wait for a faster worker: more will come that want that one.
MEANWHILE: Final = 2
#: Jobs beyond which nobody is let wait for a worker without room but for its models.
DEEP: Final = 256
WITH_ROOM: Final = (Tier.IDLE, Tier.ROOM)
#: A staged job is taken back when it would be done earlier elsewhere by this much, and by this part of what it takes.
GAIN_MS: Final = 1_000
GAIN: Final = 0.2
#: It must not begin for so long, or it could have begun before the worker hears of it.
NOT_BEGUN_MS: Final = 1_000
#: Candidates that a decision's record names.
TOLD: Final = 8
#: Staged jobs looked at in one turn, how often each of them, and how often one job is taken back.
STAGED: Final = 8
LOOK_MS: Final = 500
MOVES: Final = 3
#: So long before its deadline a job waits for nobody any more and is not taken back: what is expected may come later,
#: and the deadline counts for whatever waits.
HASTE_MS: Final = 10_000


class Placing:
    def __init__(self, leases: Leases, fairness: Fairness) -> None:
        self._leases = leases
        self._fairness = fairness
        self._estimates = leases.estimates
        self._policy = POLICIES[leases.rules.policy]
        #: Whether the policy expects anything, so that what is loaded and how long it takes count.
        self._expects = self._policy is finish_time
        self.rooms = Rooms(leases.roster, leases.estimates, loads_ahead=not self._expects)
        self._rivals = Rivals(leases, self.rooms)
        #: Jobs sent, by kind of worker, and turns in which looking for one was given up.
        self._placed: dict[Kind, int] = {}
        #: Lanes that may still be looked at in this turn; none: the next turn goes on at once.
        self._lanes_left = LANES

    @property
    def stopped_short(self) -> bool:
        """Whether the last turn ended before everything was sent that could be."""
        return self._lanes_left <= 0

    def place(self, step: Step, now: Now) -> None:
        """Hand out work while some worker has room for something that waits."""
        self._look_again(step, now)
        self._lanes_left = LANES
        if self._leases.roster.fleet_paused or self._leases.jobs.disk_full:
            return
        self._hand_out(step, now)
        if self._expects and self.rooms.staged and self._take_back(step, now):
            self._hand_out(step, now)

    def charge(self, job_id: str) -> float:
        """By how much a job adds to its owner's share of the fleet."""
        record = self._leases.jobs.live[job_id].record
        return self._fairness.charge(record.owner, self._estimates.reference_ms(record.needs))

    # ---- handing out

    def _hand_out(self, step: Step, now: Now) -> None:
        backlog, looks, lanes = self._backlog, LOOKS, list[Lane]()
        while looks and len(backlog) and not self.stopped_short:
            lanes = list(self.rooms.lanes(backlog))
            group = self._next(lanes, now)
            if group is None:
                break
            if self._try(step, group, now):
                # Only what was sent counts: each turn comes past those at the head that nobody can be sent.
                self._lanes_left -= len(lanes)
            else:
                looks -= 1
                backlog.set_aside(group)
        backlog.restore()
        if not looks:  # the next turn meets the same ones again: now and then it begins with the oldest instead
            for kind in {lane.kind for lane in lanes if not self._is_ahead(lane)}:
                self._placed[kind] = self._placed.get(kind, 0) + 1

    def _next(self, lanes: Iterable[Lane], now: Now) -> Group | None:
        """The group whose first job goes next, of all that some worker with room can run."""
        backlog = self._backlog
        aged: list[Group] = []
        fair: list[tuple[Group, Lane]] = []
        for lane in lanes:
            by_age = self._goes_by_age(lane.kind) and not self._is_ahead(lane)
            group = backlog.next_in(lane, by_age=by_age)
            if group is not None and by_age:
                aged.append(group)
            elif group is not None:
                fair.append((group, lane))
        if aged:
            return min(aged, key=backlog.turn)
        fair.sort(key=lambda found: backlog.urgency(found[0], found[1].kind))
        return next((group for group, lane in fair if self._may_go(group, lane, now)), None)

    def _is_ahead(self, lane: Lane) -> bool:
        """Whether what goes from there is sent ahead to a busy worker, and only if it needs no load."""
        stand = self.rooms.stand(lane.pin) if lane.pin and self._expects else None
        return lane.models is not None or (stand is not None and stand.tier is Tier.ROOM)

    def _may_go(self, group: Group, lane: Lane, now: Now) -> bool:
        """Whether its first job may go now. What is sent ahead to a busy worker keeps that from whoever is first and
        waits until it is idle to load models there."""
        if not self._is_ahead(lane):
            return True
        backlog, by_age = self._backlog, self._goes_by_age(lane.kind)
        first = backlog.next_in(Lane(lane.kind), by_age=by_age)
        if first is None or first is group:
            return True
        if not by_age and backlog.urgency(group, lane.kind) < backlog.urgency(first, lane.kind):
            return True
        load_ms = sum(self._estimates.load_ms(model, "") for model in first.key.models)
        return self._rivals.may_overtake(first, group, lane.kind, load_ms, now)

    def _open(self, group: Group, stands: list[Stand], now: Now) -> list[Stand]:
        """Of these workers those that its first job may go to: to a busy one of another kind than that of the lane it
        was found in only if it may go there, too."""
        if not self._expects:
            return stands
        kinds = {stand.kind for stand in stands if stand.tier is Tier.ROOM}
        shut = {kind for kind in kinds if not self._may_go(group, Lane(kind, models=group.key.models), now)}
        return [stand for stand in stands if stand.tier is not Tier.ROOM or stand.kind not in shut] if shut else stands

    def _try(self, step: Step, group: Group, now: Now) -> bool:
        """Send the group's first job to a worker, or another job that may go before it; answers whether one was."""
        job = self._first(group)
        # While more waits than they could take, workers without room matter only where they hold the models.
        tiers = Tier if len(self._backlog) < DEEP else WITH_ROOM
        candidates = self._candidates(job, self._open(group, self.rooms.able(group.key, tiers), now), now)
        if not any(candidate.room for candidate in candidates):
            return False
        if job.record.deadline_utc_ms is not None:  # it does not wait for who comes to it too late
            left_ms = job.record.deadline_utc_ms - now.utc_ms
            candidates = [one for one in candidates if one.room or one.wait_ms + HASTE_MS < left_ms]
        choice = self._policy(candidates, self._waiting(group, candidates, now))
        if not choice.now:
            since_ms = group.wait.since_ms if group.wait is not None else now.mono_ms
            group.wait = Wait(since_ms, choice.worker, _ready(candidates).worker)
            return False
        chosen = next(candidate for candidate in candidates if candidate.worker == choice.worker)
        rival = None
        if self._expects and chosen.missing:
            rival = self._rivals.of(group, chosen, now)
        if rival is not None:
            self._passed_over(group, now)
            group, why = rival
            job = self._first(group)
            stands = (self.rooms.stand(candidate.worker) for candidate in candidates if candidate.room)
            candidates = self._candidates(job, [stand for stand in stands if stand is not None], now)
            choice = Choice(choice.worker, why)
        else:
            group.overtaken_ms = None
        kind = self._leases.roster.by_name[choice.worker].kind
        first = self._backlog.next_in(Lane(kind), by_age=self._goes_by_age(kind)) if chosen.held else group
        self._send(step, job, candidates, self._decision(group, job, candidates, choice, now), now)
        group.wait = None
        if first is not None and first is not group:
            self._passed_over(first, now)
        return True

    def _passed_over(self, group: Group, now: Now) -> None:
        """Others go before its first job; that has an end."""
        if group.overtaken_ms is None:
            group.overtaken_ms = now.mono_ms

    def _decision(self, group: Group, job: Job, candidates: list[Candidate], choice: Choice, now: Now) -> Decision:
        """What the job's story keeps of it."""
        wait, why = group.wait, choice.why
        if wait is not None and why is Why.HOLDS_MODELS:
            why = Why.WAITED_FOR_MODELS
        elif wait is not None and wait.worker == choice.worker:
            why = Why.WAITED_FOR_FASTER
        if job.record.pin or job.moves:
            why = Why.PINNED if job.record.pin else Why.MOVED
        named = (choice.worker, wait.instead if wait is not None else "")
        soonest = sorted(candidates, key=lambda one: (one.worker not in named, one.finish_ms))[:TOLD]
        return Decision(
            policy=self._leases.rules.policy,
            why=why,
            worker=choice.worker,
            waited_ms=now.mono_ms - wait.since_ms if wait is not None else 0,
            waited_for=wait.worker if wait is not None else "",
            instead=wait.instead if wait is not None else "",
            candidates=tuple(_considered(one) for one in sorted(soonest, key=lambda one: one.finish_ms)),
        )

    def _send(self, step: Step, job: Job, candidates: list[Candidate], decision: Decision, now: Now) -> None:
        chosen = next(candidate for candidate in candidates if candidate.worker == decision.worker)
        if not job.paid:
            self._fairness.served(job.record.owner, self._estimates.reference_ms(job.record.needs))
        job.paid = False
        holder = self._leases.roster.by_name[chosen.worker]
        self._placed[holder.kind] = self._placed.get(holder.kind, 0) + 1
        self._leases.dispatch(step, job, holder, now, decision=decision, expect_ms=chosen.load_ms + chosen.run_ms)
        self.rooms.look(chosen.worker, now)
        self._leases.roster.touched.pop(chosen.worker, None)

    def _waiting(self, group: Group, candidates: list[Candidate], now: Now) -> Waiting:
        models, backlog = group.key.models, self._backlog
        # By work, so that pictures behind a film count little; of jobs of one length it is their number.
        one, work = 1 << group.key.work, backlog.work_for[models]
        alike = min(backlog.waiting_for[models], MEANWHILE * work / one)
        ready = _ready(candidates)
        patience_ms = ready.load_ms if ready.load_ms else ready.run_ms
        patient = group.wait is None or now.mono_ms - group.wait.since_ms < patience_ms
        return Waiting(alike, (backlog.work - work) / one, patient)

    # ---- what is expected of whom

    def _candidates(self, job: Job, stands: Iterable[Stand], now: Now) -> list[Candidate]:
        """What is expected of these workers."""
        record, estimates = job.record, self._estimates
        failed_on = record.last_worker if record.burnt else ""
        models, run_ms, load_ms = record.needs.models, estimates.runs(record.needs), estimates.load_ms
        found = []
        for stand in stands:
            name, held = stand.name, stand.models
            missing = tuple([model for model in models if model not in held]) if models != held else ()
            runs = int(run_ms(name, stand.speed) * stand.slowdown)
            found.append(
                Candidate(
                    name,
                    stand.tier is not Tier.FULL and not self._rather_later(stand, missing),
                    len(stand.worker.jobs),
                    max(0, stand.free_ms - now.mono_ms),
                    sum([load_ms(model, name) for model in missing]) if missing else 0,
                    runs,
                    missing,
                    stand.worker.given,
                    stand.speed,
                    name == failed_on,
                )
            )
        return found

    def _rather_later(self, stand: Stand, missing: tuple[str, ...]) -> bool:
        """Whether a job is better not sent ahead: next to a load waiting until that worker is idle costs nothing, and
        by then something may have come that needs no load, or is worth it more."""
        return bool(missing) and stand.tier is Tier.ROOM and self._expects

    # ---- taking back

    def _take_back(self, step: Step, now: Now) -> bool:
        """Take a job back that waits behind something, when somebody else would have it done sooner; answers whether
        there was one."""
        due = [
            stand for stand in islice(self.rooms.staged.values(), STAGED) if stand.looked_ms + LOOK_MS <= now.mono_ms
        ]
        for stand in due:
            self.rooms.looked_at(stand, now)
            better = self._better(stand, stand.last, now) if stand.last is not None else ""
            if better and stand.last is not None:
                self._leases.take_back(step, stand.last, now, f"{better} would have it done sooner than {stand.name}")
                self.rooms.look(stand.name, now)
                return True
        return False

    def _clear(self, step: Step, present: Worker, now: Now) -> None:
        """Take all back that a worker has not begun on which nothing goes well: each would lose an attempt there."""
        for job in list(present.jobs.values()):
            # One that a new session has not named yet may run there.
            known = job.confirmed or job.dispatch_serial
            if known and _movable(job):
                self._leases.take_back(step, job, now, f"{present.name} gets no work: {present.breaker.why}"[:500])

    def _better(self, stand: Stand, job: Job, now: Now) -> str:
        """Who would have its last job done so much sooner that it is worth taking it back; "" when nobody would."""
        record = job.record
        if not _movable(job) or job.moves >= MOVES or record.pin or record.expect_ms is None:
            return ""
        done_ms = max(0, stand.done_ms - now.mono_ms)
        if done_ms - record.expect_ms < NOT_BEGUN_MS:
            return ""
        others = [other for other in self.rooms.able(group_key(record.needed)) if other is not stand]
        found = [one for one in self._candidates(job, others, now) if not (one.missing and one.held)]
        # What waits has its turn before: the job would be sent to the same worker again, or another in its place, and
        # that be taken back as well.
        asked = {other.kind for other in others if other.tier is Tier.FULL and self._backlog.next_in(Lane(other.kind))}
        busy = {other.name for other in others if other.kind in asked}
        found = [one for one in found if one.room or one.worker not in busy]
        if record.deadline_utc_ms is not None:  # it has been begun in time as long as it is let lie
            hasty = record.deadline_utc_ms - now.utc_ms < HASTE_MS
            found = [one for one in found if one.room and not hasty]
        best = min(found, key=lambda one: (one.failed_here, one.finish_ms), default=None)
        if best is None or best.failed_here:
            return ""
        return best.worker if done_ms - best.finish_ms >= max(GAIN_MS, GAIN * best.finish_ms) else ""

    # ---- within

    def _goes_by_age(self, kind: Kind) -> bool:
        """Whether the next job of such workers goes by age alone, and none before it."""
        return self._placed.get(kind, 0) % BY_AGE == BY_AGE - 1

    @property
    def _backlog(self) -> Backlog:
        return self._leases.jobs.backlog

    def _first(self, group: Group) -> Job:
        return self._leases.jobs.live[self._backlog.first_of(group)[2]]

    def _look_again(self, step: Step, now: Now) -> None:
        """See how those workers stand about which something has changed."""
        roster = self._leases.roster
        if roster.relearnt:
            relearnt, roster.relearnt = roster.relearnt, set()
            self._backlog.forget(lambda lane: lane.kind[0] in relearnt)
            self._placed = {kind: placed for kind, placed in self._placed.items() if kind[0] not in relearnt}
        touched, roster.touched = roster.touched, {}
        for name in touched:
            self.rooms.look(name, now)
            present = roster.by_name.get(name)
            if present is not None and present.breaker.state is BreakerState.OPEN:
                self._clear(step, present, now)


def _movable(job: Job) -> bool:
    """Whether it has not begun where it is, and can have another attempt."""
    record = job.record
    return record.state in (JobState.LEASED, JobState.RUNNING) and waits(job) and record.attempt < ATTEMPTS_MOST


def _ready(candidates: list[Candidate]) -> Candidate:
    """Of those with room the one that would have it done soonest."""
    return min((one for one in candidates if one.room), key=lambda one: one.finish_ms)


def _considered(candidate: Candidate) -> Considered:
    return Considered(
        worker=candidate.worker,
        wait_ms=candidate.wait_ms,
        load_ms=candidate.load_ms,
        run_ms=candidate.run_ms,
        missing_models=candidate.missing[:16],
    )
