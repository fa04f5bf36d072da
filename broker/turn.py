"""One turn of the broker: every message that has arrived, one commit, and only then whatever leaves.

Knows the order of things and no socket: the server gives it decoded messages, the simulation test does the same with
a store that forgets. Never catches a StoreError: whoever runs turns must stop on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Final

from broker import reading
from broker.core.events import Event, FromClient, FromWorker, Outlived, Tick, Unreachable
from broker.core.fleet import Fleet
from broker.core.model import JobRecord
from broker.core.news import can_wait
from broker.core.rules import Now
from broker.core.step import AddStory, SaveFigure, Send, Step, UpdateJob, Write
from broker.core.submits import ids
from broker.protocol import client
from broker.protocol.records import JobState
from broker.protocol.value import replace
from broker.protocol.worker import Complete, Fail, OutputsMissing, Recorded
from broker.store.api import Page, Store

#: The longest that a write may wait for a commit, when nothing else asks for one.
UNSAVED_MS: Final = 500
#: The longest that a result waits for its files, which travel beside it, before its worker is told to send them again.
FILES_MS: Final = 5_000
#: The longest that what nobody acts on is kept, so that it leaves with what follows: a job that is soon over is one
#: change for whoever watches.
GATHER_MS: Final = 20


@dataclasses.dataclass(slots=True)
class Outbound:
    """What leaves after the commit, in this order."""

    to_workers: list[Send] = dataclasses.field(default_factory=list)
    to_clients: list[Send] = dataclasses.field(default_factory=list)
    published: list[Any] = dataclasses.field(default_factory=list)
    #: To workers: that an end is recorded. Nobody waits for it.
    recorded: list[Send] = dataclasses.field(default_factory=list)


class Turn:
    def __init__(
        self,
        fleet: Fleet,
        store: Store,
        has_file: Callable[[str], bool],
        disk_full: Callable[[], bool] = lambda: False,
        search: Callable[[FromClient], None] | None = None,
    ) -> None:
        """has_file: whether the file store holds this sha256, whole and durable. disk_full: whether to take no more.

        search: takes a List for words, to be answered by `found` in a later turn; None: they are answered here.
        """
        self.fleet = fleet
        self.store = store
        self._has_file = has_file
        self._disk_full = disk_full
        self._search = search
        #: When the oldest write that waits for the next commit was made; None when there is none.
        self._unsaved_ms: int | None = None
        #: Messages that broke the contract, counted by whoever decodes.
        self.invalid = 0
        #: What was published and has no place in the stream yet, ends whose workers are not told yet that they are
        #: recorded, and until when these are kept; None while there is nothing.
        self._news: list[Any] = []
        self._recorded: list[Send] = []
        self._gather_ms: int | None = None
        #: Results whose files are not all here, by job, each with the time until when it waits for them.
        self._early: dict[str, tuple[FromWorker | Unreachable, int]] = {}

    def take(
        self,
        from_workers: Iterable[FromWorker | Unreachable],
        from_clients: Iterable[FromClient],
        now: Now,
    ) -> Outbound:
        """Handle everything, commit once, and return what may leave now. Results come before submits."""
        out = Outbound()
        urgent = acted = False
        self.fleet.invalid_messages = self.invalid
        self.fleet.jobs.disk_full = self._disk_full()
        early, self._early = self._early, {}
        # Not of a session that is over: to hear it now would be to hear a process that lives beside its successor.
        present = self.fleet.roster.by_session
        for event in (*(event for event, _ in early.values() if event.session in present), *from_workers):
            if (missing := self._missing_outputs(event)) is not None:
                job_id = missing.message.job_id
                until_ms = early[job_id][1] if job_id in early else now.mono_ms + FILES_MS
                if now.mono_ms < until_ms:
                    self._early[job_id] = event, until_ms
                else:
                    out.to_workers.append(missing)
                continue
            urgent |= self._handle(self._informed(event), now, out)
        for request in from_clients:
            if self._search is not None and isinstance(request.message, client.List) and request.message.text:
                self._search(request)
                continue
            if type(request.message) in reading.HANDLERS:
                self._publish(out)  # a snapshot says where in the stream it stands
                seen = reading.Reading(self.fleet, self.store, now)
                out.to_clients.append(Send(request.session, reading.answer(seen, request.message)))
                continue
            stored, deleted = self._named(request.message)
            refusal = self._missing_inputs(request.message) if stored is None and not deleted else None
            if refusal is not None:
                out.to_clients.append(Send(request.session, refusal))
                continue
            # Whoever has changed a job that was there looks at once what came of it.
            acted |= not isinstance(request.message, client.Submit)
            urgent |= self._handle(replace(request, stored=stored, deleted=deleted), now, out)
        urgent |= self._handle(Tick(), now, out)
        leaving = bool(out.to_workers or out.to_clients)
        self._let_go(now, out, at_once=acted)
        if self._unsaved_ms is not None and (urgent or leaving or now.mono_ms - self._unsaved_ms >= UNSAVED_MS):
            self.save()
        out.to_workers = [self._with_workflow(send) for send in out.to_workers]
        return out

    def found(self, request: FromClient, page: Page | None, now: Now) -> Outbound:
        """The reply to a List that `search` was given."""
        reply = reading.listed(reading.Reading(self.fleet, self.store, now), request.message, page)
        return Outbound(to_clients=[Send(request.session, reply)])

    def clear(self, records: tuple[JobRecord, ...], now: Now) -> Outbound:
        """Delete jobs that have been over for long, as if somebody had asked for each; returns what may leave now."""
        out = Outbound()
        self._handle(Outlived(records), now, out)
        self._publish(out)
        self.save()
        return out

    def end(self) -> Outbound:
        """What still waits, when no turn follows."""
        out = Outbound(recorded=self._recorded)
        self._recorded = []
        self._publish(out)
        self.save()
        return out

    def sleep_ms(self, mono_ms: int) -> int:
        """How long until the next turn must come, even if nothing arrives."""
        until = [until_ms for _, until_ms in self._early.values()]
        if self._gather_ms is not None:
            until.append(self._gather_ms)
        return min((self.fleet.sleep_ms(mono_ms), *(max(0, until_ms - mono_ms) for until_ms in until)))

    @property
    def wants_files(self) -> bool:
        """Whether a result waits for files: when one has become durable, a turn should follow."""
        return bool(self._early)

    @property
    def saved(self) -> bool:
        """Whether everything that happened is durable."""
        return self._unsaved_ms is None

    def save(self) -> None:
        """Commit whatever waits for the next commit. Raises StoreError."""
        self.store.commit()
        self._unsaved_ms = None

    def _handle(self, event: Event, now: Now, out: Outbound) -> bool:
        """Whether a commit must follow in this turn.

        That a worker has begun may wait for the next one, as long as nobody is told anything but watchers: after a
        crash the attempt is still leased to the worker, which says again how far it is.
        """
        step: Step = self.fleet.handle(event, now)
        if step.writes and self._unsaved_ms is None:
            self._unsaved_ms = now.mono_ms
        for write in step.writes:
            self.store.apply(write)
        for send in step.sends:
            (self._recorded if isinstance(send.message, Recorded) else out.to_workers).append(send)
        out.to_clients += step.replies
        self._news += step.published
        return any(not _commits_later(write) for write in step.writes)

    def _let_go(self, now: Now, out: Outbound, *, at_once: bool) -> None:
        """Whatever waited leaves with what cannot wait, and when its time has come. at_once: this time no news wait."""
        if self._gather_ms is None and (self._news or self._recorded):
            self._gather_ms = now.mono_ms + GATHER_MS
        due = self._gather_ms is not None and now.mono_ms >= self._gather_ms
        if due or out.to_workers:
            out.recorded, self._recorded = self._recorded, []
        if due or at_once or not all(map(can_wait, self._news)):
            self._publish(out)
        if not self._news and not self._recorded:
            self._gather_ms = None

    def _publish(self, out: Outbound) -> None:
        news, self._news = self._news, []
        out.published += self.fleet.publish(news)

    def _informed(self, event: FromWorker | Unreachable) -> FromWorker | Unreachable:
        """Add what the store knows of the job whose end is reported, when the core no longer holds it."""
        if isinstance(event, FromWorker) and isinstance(event.message, (Complete, Fail)):
            job_id = event.message.job_id
            if job_id not in self.fleet.jobs.live:
                return replace(event, stored=self.store.job(job_id))
        return event

    def _named(self, said: Any) -> tuple[JobRecord | None, str]:
        """The stored job a request names, or else the id of the deleted one that a Submit would run again."""
        if not isinstance(said, client.Submit):
            job_id = getattr(said, "job_id", None)
            return self.store.job(job_id) if job_id is not None else None, ""
        by_key = self.store.job_by_key(said.owner, said.idempotency_key) if said.idempotency_key else None
        if by_key is not None:
            return by_key, ""
        # Before the ids: of a group whose first job was deleted, the others may still be there.
        if deleted := self._deleted(said):
            return None, deleted
        found = (read(one) for read in (self.store.job, self.store.job_in_group) for one in ids(said))
        return next((record for record in found if record is not None), None), ""

    def _deleted(self, said: client.Submit) -> str:
        by_key = self.store.deleted_by_key(said.owner, said.idempotency_key) if said.idempotency_key else ""
        return by_key if by_key else next(filter(self.store.is_deleted, ids(said)), "")

    def _missing_outputs(self, event: FromWorker | Unreachable) -> Send | None:
        """What a worker is told at last whose result is not whole: one counts only when every file of it is durable
        here."""
        if not isinstance(event, FromWorker) or not isinstance(event.message, Complete):
            return None
        said = event.message
        job = self.fleet.jobs.live.get(said.job_id)
        if job is None or (job.session, job.record.attempt) != (event.session, said.attempt):
            return None  # it does not count, whatever files it has: what to do is the core's answer
        missing = tuple(sorted({o.sha256 for o in said.outputs if not self._has_file(o.sha256)}))
        if not missing:
            return None
        return Send(event.session, OutputsMissing(job_id=said.job_id, attempt=said.attempt, missing=missing))

    def _missing_inputs(self, said: Any) -> client.Error | None:
        if not isinstance(said, client.Submit):
            return None
        missing = [f.name for f in said.files if not self._has_file(f.sha256)]
        if not missing:
            return None
        text = f"these input files are not stored: {', '.join(missing[:5])}; upload them first"
        return client.Error(request_id=said.request_id, code="invalid", text=text, retry_after_ms=0)

    def _with_workflow(self, send: Send) -> Send:
        if not send.workflow_of:
            return send
        message = replace(send.message, workflow=self.store.workflow(send.workflow_of))
        return Send(send.session, message)


def _commits_later(write: Write) -> bool:
    """Whether this only says that a worker has a job's attempt in hand, or what was learnt of it."""
    if isinstance(write, SaveFigure):
        return True
    if isinstance(write, UpdateJob):
        return write.record.state is JobState.RUNNING
    return isinstance(write, AddStory) and write.line.what == JobState.RUNNING
