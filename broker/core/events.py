"""What can happen to the core. Each event is one value; the clock reading comes beside it."""

from __future__ import annotations

from typing import Any

from broker.core.model import JobRecord
from broker.protocol.value import dataclass


@dataclass(frozen=True, slots=True)
class FromWorker:
    """A checked message on the workers socket.

    key_name: the worker name its CURVE key is bound to; empty where the link is not authenticated.
    stored: what the store knows of the job the message names, if the core does not hold it as live.
    """

    session: str
    message: Any
    key_name: str = ""
    stored: JobRecord | None = None


@dataclass(frozen=True, slots=True)
class FromClient:
    """A checked request. stored: the job it names (for Submit: the one with the same key or id), if any.

    deleted: the id of a deleted job whose key or id a Submit brings again; "" when there is none.
    """

    session: str
    message: Any
    stored: JobRecord | None = None
    deleted: str = ""


@dataclass(frozen=True, slots=True)
class Outlived:
    """Stored jobs that have been over for longer than they are kept."""

    records: tuple[JobRecord, ...]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A send to this worker session found no connection."""

    session: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The end of a turn: every message that had arrived is handled. Deadlines fall and work is handed out now."""


Event = FromWorker | FromClient | Unreachable | Outlived | Tick
