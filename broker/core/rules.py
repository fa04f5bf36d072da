"""The figures the core decides by, and the one clock reading each decision gets. Values come from config.ini."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from broker.protocol.value import dataclass


@dataclass(frozen=True, slots=True)
class Now:
    """`mono_ms` decides, `utc_ms` is written down for people."""

    mono_ms: int
    utc_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    heartbeat_ms: int = 2_000
    #: A worker silent for so long is lost and what it holds is queued again.
    lease_ms: int = 10_000
    #: A dispatch not confirmed for so long is taken back.
    accept_ms: int = 5_000
    #: The longest the loop sleeps; whatever it wakes later than this is its own lateness, and no lease pays for it.
    turn_ms: int = 1_000
    #: Attempts that infrastructure may cost a job.
    max_attempts: int = 3
    #: Workers a job may take down with it before it is kept aside for a person.
    max_deaths: int = 3
    #: Different jobs that fail in a row on a worker, for reasons of its own, before it gets no more.
    breaker: int = 3
    #: A probe not answered for so long has failed.
    probe_ms: int = 60_000
    #: The wait before the first probe; doubles with each setback, up to the second.
    probe_first_ms: int = 5_000
    probe_cap_ms: int = 5 * 60_000
    backoff_base_ms: int = 500
    backoff_cap_ms: int = 30_000
    max_queued: int = 1_000_000
    max_queued_per_owner: int = 100_000
    start_to_close_ms: int = 30 * 60_000
    stall_ms: int = 5 * 60_000
    #: How often counts are published at most.
    stats_every_ms: int = 500
    #: How long a change of what a worker holds, counts and measures may wait, to be told along with the next ones.
    workers_every_ms: int = 100
    #: How often the outlook is published at most, and what was learnt is saved.
    outlook_every_ms: int = 1_000
    save_every_ms: int = 60_000
    #: By which jobs are given to workers; a name of placement.POLICIES.
    policy: str = "finish_time"
    #: Attempts of one owner that workers may hold at once; 0 = as many as there is room for.
    max_running_per_owner: int = 0
    #: The share of the fleet an owner has beside others; 1 for whoever is not named.
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
