"""What the worker's pure core asks of its shell, one frozen dataclass a wish; loop.py carries each out.

Wishes about ComfyUI are carried out one at a time in the order given. Each that has an answer is answered through the
method of machine.py or run.py named beside it. Pure values: nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker.protocol.records import Held, InputFile
from comfyui.outputs import OutputFile
from comfyui.workflow import Workflow

#: (job_id, attempt): what a worker calls an attempt.
Key = tuple[str, int]


# ---- to the broker


@dataclass(frozen=True, slots=True)
class Send:
    """One message of the contract. Whatever matters is repeated until it is answered: losing one does no harm.

    can_wait: nobody's next step depends on it, so it may leave a little later, together with what follows.
    """

    message: Any
    can_wait: bool = False


@dataclass(frozen=True, slots=True)
class Pulse:
    """Send a Heartbeat with the newest stats."""

    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class NewSocket:
    """Drop the socket to the broker with all that waits in it, and dial again."""


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """Put the capability document into the file store, then send Capabilities; once at a time."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker is done. failed: somebody must mend something before it is started again."""

    why: str
    failed: bool


# ---- to ComfyUI


@dataclass(frozen=True, slots=True)
class Stage:
    """Bring these files into ComfyUI's input folder. Answered by inputs_staged or not_taken."""

    key: Key
    files: tuple[InputFile, ...]


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue the prompt. Answered by submitted, not_taken or unsure."""

    key: Key
    prompt_id: str
    workflow: Workflow


@dataclass(frozen=True, slots=True)
class Look:
    """Where is this prompt now? Answered by looked or unreachable."""

    key: Key
    prompt_id: str


@dataclass(frozen=True, slots=True)
class Dequeue:
    """Take the prompt back if it still waits."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stop the prompt if it is the one that runs, and never another."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Free:
    """Make ComfyUI drop its models and cached results."""


@dataclass(frozen=True, slots=True)
class Survey:
    """List the prompts in ComfyUI's queue. Answered by surveyed."""


@dataclass(frozen=True, slots=True)
class RestartComfy:
    """Run the operator's command that starts ComfyUI anew."""

    why: str


@dataclass(frozen=True, slots=True)
class Listen:
    """Open ComfyUI's socket anew under this client id."""

    client_id: str


# ---- between the two


@dataclass(frozen=True, slots=True)
class FromComfy:
    """An output that ComfyUI holds as a file."""

    file: OutputFile


@dataclass(frozen=True, slots=True)
class FromSocket:
    """An output that came over ComfyUI's socket and exists nowhere else."""

    node_id: str
    name: str
    data: bytes


Source = FromComfy | FromSocket


@dataclass(frozen=True, slots=True)
class Deliver:
    """Store these outputs with the broker. Answered by delivered or delivery_failed."""

    key: Key
    sources: tuple[Source, ...]
    #: Only what the broker has said it holds is delivered; else what has wholly left for it is, too, where that is soon
    #: known: the broker waits a little for the files of a result, and says which it lacks.
    surely: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Stop whatever is still under way or waiting for this attempt; it is not answered any more."""

    key: Key
