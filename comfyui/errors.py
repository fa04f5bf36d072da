"""What can go wrong between a worker and its ComfyUI, split by what the catcher should do.

ComfyError
├── ComfyUnreachable   no usable answer: try again in a moment
├── ComfyLost          what happened is unknown: ask `find` before doing anything else
├── ComfyRejected      ComfyUI said no to what was sent: the same would be refused again
└── ComfyFailed        a prompt ran, but its result cannot be had

The text of each says what happened, where, and what to do. It is for people and is never compared.
"""

from collections.abc import Mapping


class ComfyError(Exception):
    """Anything ComfyUI did or did not do."""


class ComfyUnreachable(ComfyError):
    """Refused, timed out, closed, a 5xx or nonsense. Nothing was changed as far as is known: try again later."""


class ComfyLost(ComfyError):
    """The connection ended in mid-call: ComfyUI may or may not have the prompt. Ask `find` before sending again."""


class ComfyRejected(ComfyError):
    """ComfyUI looked at what was sent and refused it. Sending the same again ends the same: fail the attempt."""

    def __init__(self, message: str, *, error: str = "", node_errors: Mapping[str, tuple[str, ...]] | None = None):
        super().__init__(message)
        #: ComfyUI's own word for the refusal, such as "prompt_outputs_failed_validation"; "" when it gave none
        self.error = error
        #: node id -> what is wrong with that node, one plain sentence each
        self.node_errors: Mapping[str, tuple[str, ...]] = node_errors if node_errors is not None else {}


class ComfyFailed(ComfyError):
    """The prompt ended, but its output is missing, over a limit or named in a way we refuse to follow."""
