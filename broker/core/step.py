"""What the core answers an event with: writes, then sends, then events for whoever watches.

The order is in the type: the caller makes all writes durable in one commit before the first send leaves.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from broker.core.estimates import Figure
from broker.core.model import JobRecord
from broker.protocol.story import StoryLine
from broker.protocol.value import dataclass


@dataclass(frozen=True, slots=True)
class InsertJob:
    record: JobRecord
    workflow: bytes
    form: bytes
    #: Beside the title: what it is searched by.
    text: str = ""


@dataclass(frozen=True, slots=True)
class UpdateJob:
    """Replaces the record of an existing job. What its submit fixed for life stays: a store refuses to change it."""

    record: JobRecord


@dataclass(frozen=True, slots=True)
class AddStory:
    job_id: str
    line: StoryLine


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Removes a job and everything about it. That its id and its key were used is remembered."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Remember:
    """A word about the fleet itself that outlives the broker's process; an empty value forgets it."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class SaveFigure:
    """Keep something learnt, in place of what was learnt before of the same."""

    figure: Figure


Write = InsertJob | UpdateJob | AddStory | DeleteJob | Remember | SaveFigure


@dataclass(frozen=True, slots=True)
class Send:
    """One message for one session. `workflow_of`: the workflow of that job, read from the store, goes with it."""

    session: str
    message: Any
    workflow_of: str = ""


@dataclass(slots=True)
class Step:
    writes: list[Write] = dataclasses.field(default_factory=list)
    #: To workers.
    sends: list[Send] = dataclasses.field(default_factory=list)
    #: To clients, each the one answer to one request.
    replies: list[Send] = dataclasses.field(default_factory=list)
    #: Messages of protocol.events, in order; a Job stands for the JobChanged of it.
    published: list[Any] = dataclasses.field(default_factory=list)
