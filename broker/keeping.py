"""What is kept and what goes: jobs that have been over for long, and files that no job names. A little between turns.

The order is what makes it safe: a job's deletion is durable before the first of its files may go, and a file goes only
while everything that was decided is durable. A crash at any point leaves at most files for the next round: adr/0017.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from broker.core.model import JobRecord
from broker.core.rules import Now
from broker.store.files import FileProblem, FileStore
from broker.turn import Outbound, Turn

#: What one step does at most, a few milliseconds, and the wait before the next one.
JOBS_AT_ONCE: Final = 10
FILES_AT_ONCE: Final = 100
STEP_MS: Final = 100
#: The wait while jobs end faster than they go: so many too many are there, or the oldest should have gone so long ago.
HURRY_MS: Final = 20
BEHIND_JOBS: Final = 1_000
BEHIND_MS: Final = 60_000
#: How often jobs are looked at when there were none to delete, and the wait between two rounds over all files.
LOOK_MS: Final = 10_000
ROUND_MS: Final = 3_600_000
#: The first round waits, so that workers that were there before the broker are there again.
FIRST_MS: Final = 60_000
#: The wall clock is not believed once it has moved so far against the monotonic one: a clock that jumps a year ahead
#: would delete every job.
JUMP_MS: Final = 3_600_000
#: The log says what went so often at most.
TELL_MS: Final = 60_000

log = logging.getLogger(__name__)


class Keeping:
    def __init__(self, turn: Turn, files: FileStore, *, keep_for_ms: int, keep_jobs: int, now: Now) -> None:
        """keep_for_ms: of a job after its end. keep_jobs: that are over. 0: for ever, and all. Same thread as turn."""
        self._turn = turn
        self._files = files
        self._keep_for_ms = keep_for_ms
        self._keep_jobs = keep_jobs
        self._due_ms = self._jobs_due_ms = now.mono_ms
        self._files_due_ms = now.mono_ms + FIRST_MS
        #: By how much the wall clock is ahead of the monotonic one, as far as it is believed; and whether it is.
        self._ahead_ms = now.utc_ms - now.mono_ms
        self._believed = True
        self._step_ms = STEP_MS
        #: What is left of the round over all files.
        self._round: Iterator[str] | None = None
        #: Why the first one stays that should have gone in this round.
        self._stuck = ""
        self._told_ms = now.mono_ms
        #: Not told yet.
        self._jobs = self._files_gone = self._bytes = 0

    def sleep_ms(self, mono_ms: int) -> int:
        """How long the loop may wait for messages before the next step."""
        return max(0, self._due_ms - mono_ms)

    def step(self, now: Now) -> Outbound:
        """Do a little if it is time. Returns what may leave: that jobs are gone."""
        out = Outbound()
        if now.mono_ms < self._due_ms:
            return out
        self._due_ms = now.mono_ms + self._step_ms
        if self._turn.saved:
            if now.mono_ms >= self._jobs_due_ms:
                out = self._clear(now)
            if now.mono_ms >= self._files_due_ms:
                self._collect(now)
            if now.mono_ms - self._told_ms >= TELL_MS:
                self._tell(now)
            self._due_ms = max(now.mono_ms + self._step_ms, min(self._jobs_due_ms, self._files_due_ms))
        return out

    def _clear(self, now: Now) -> Outbound:
        store = self._turn.store
        over: tuple[JobRecord, ...] = ()
        counts = self._turn.fleet.jobs.counts
        excess = sum(count for state, count in counts.items() if state.terminal) - self._keep_jobs
        behind = False
        if self._keep_jobs and excess > 0:
            over = store.ended(before_utc_ms=None, limit=min(excess, JOBS_AT_ONCE))
            behind = excess > BEHIND_JOBS
        elif self._keep_for_ms and self._believes(now):
            before_ms = now.utc_ms - self._keep_for_ms
            over = store.ended(before_utc_ms=before_ms, limit=JOBS_AT_ONCE)
            behind = any((record.finished_utc_ms or 0) < before_ms - BEHIND_MS for record in over[-1:])
        self._step_ms = HURRY_MS if behind else STEP_MS
        if not over:
            self._jobs_due_ms = now.mono_ms + LOOK_MS
            return Outbound()
        for record in over:
            log.debug("a job is not kept any longer", extra={"fields": {"job": record.job_id}})
        self._jobs += len(over)
        return self._turn.clear(over, now)

    def _believes(self, now: Now) -> bool:
        """Whether the wall clock has not jumped; says so once when it has. Small corrections add up unnoticed."""
        ahead_ms = now.utc_ms - now.mono_ms
        before, self._believed = self._believed, abs(ahead_ms - self._ahead_ms) <= JUMP_MS
        if self._believed:
            self._ahead_ms = ahead_ms
        elif before:
            text = "the clock jumped: no job is deleted for its age until it is back or the broker is started anew"
            log.warning(text, extra={"fields": {"by_s": (ahead_ms - self._ahead_ms) // 1_000}})
        return self._believed

    def _collect(self, now: Now) -> None:
        """Look at the next files of a round."""
        if self._round is None:
            self._round = self._files.stored()
        in_use = self._turn.fleet.roster.documents()
        try:
            for _ in range(FILES_AT_ONCE):
                sha256 = next(self._round, None)
                if sha256 is None:
                    self._end_round(now)
                    return
                if sha256 not in in_use and not self._turn.store.names(sha256):
                    self._drop(sha256)
        except FileProblem as e:
            self._stuck = self._stuck or str(e)
            self._end_round(now)

    def _drop(self, sha256: str) -> None:
        try:
            size_bytes = self._files.drop(sha256)
        except FileProblem as e:  # the others go all the same
            self._stuck = self._stuck or str(e)
            return
        if size_bytes is not None:
            self._files_gone += 1
            self._bytes += size_bytes
            log.debug("a file that no job names is removed", extra={"fields": {"sha256": sha256}})

    def _end_round(self, now: Now) -> None:
        self._round = None
        self._files_due_ms = now.mono_ms + ROUND_MS
        if self._stuck:
            log.warning("files that no job names stay for now", extra={"fields": {"why": self._stuck}})
            self._stuck = ""

    def _tell(self, now: Now) -> None:
        self._told_ms = now.mono_ms
        if self._jobs or self._files_gone:
            fields = {"jobs": self._jobs, "files": self._files_gone, "bytes": self._bytes}
            log.info("not kept any longer", extra={"fields": fields})
            self._jobs = self._files_gone = self._bytes = 0
