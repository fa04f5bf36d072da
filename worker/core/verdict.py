"""What the end of a prompt means: which files are its result, and which of the closed list of reasons a failure has.

Everything ComfyUI says is untrusted text of any length; what leaves here fits the contract. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from broker.protocol.records import OUTPUTS_MOST, Failure, Reason
from comfyui.errors import ComfyRejected
from comfyui.messages import ExecutionError
from comfyui.outputs import OutputFile
from comfyui.replies import HistoryEntry, Outcome
from comfyui.words import plain
from worker.core.asks import FromComfy, FromSocket, Source
from worker.core.steps import Step

TRACEBACK_CHARS: Final = 16_000


def failure(reason: Reason, text: str, *, node_id: str = "", node_type: str = "", traceback: str = "") -> Failure:
    """A failure that fits the contract, whatever the text holds."""
    return Failure(
        reason=reason,
        text=plain(text, 4_000),
        node_id=plain(node_id, 200),
        node_type=plain(node_type, 200),
        # The last lines say what went wrong, the first only how it got there.
        traceback=plain(traceback[-TRACEBACK_CHARS:], TRACEBACK_CHARS),
    )


def of_refusal(error: ComfyRejected) -> Failure:
    return of_node_errors(str(error), next(iter(error.node_errors), ""))


def of_node_errors(text: str, node_id: str) -> Failure:
    return failure(Reason.INVALID_WORKFLOW, text, node_id=node_id)


def of_skipped(skipped: Mapping[str, tuple[str, ...]]) -> Failure:
    """Of outputs that ComfyUI refused, by node, when it took the rest of the workflow."""
    node_id, sentences = next(iter(skipped.items()))
    return of_node_errors("ComfyUI would run only part of the workflow: " + "; ".join(sentences), node_id)


def of_history(entry: HistoryEntry, results: Sequence[Source] = ()) -> Failure | None:
    """Why the prompt failed; None when it succeeded. results: what it made, over the socket too."""
    match entry.outcome:
        case Outcome.SUCCESS if len(results) > OUTPUTS_MOST:
            text = f"it made {len(results)} files and pictures; the limit is {OUTPUTS_MOST}"
            return failure(Reason.INVALID_WORKFLOW, text)
        case Outcome.SUCCESS:
            return None
        case Outcome.INTERRUPTED:
            return failure(Reason.INTERRUPTED, "somebody else interrupted it in ComfyUI")
    if entry.failure is None:
        return failure(Reason.NODE_ERROR, "ComfyUI says that it failed, and not why")
    return of_error(entry.failure)


def of_error(error: ExecutionError) -> Failure:
    reason = Reason.NODE_ERROR
    if error.cuda_broken:
        reason = Reason.POISONED
    elif error.out_of_memory:
        reason = Reason.OUT_OF_MEMORY
    kind = error.exception_type
    return failure(
        reason,
        f"{kind}: {error.exception_message}" if kind else error.exception_message,
        node_id=error.node_id,
        node_type=error.node_type,
        traceback="\n".join(error.traceback),
    )


def of_loss(step: Step, *, accepted_before: bool, gone: bool) -> Failure:
    """ComfyUI does not have the prompt. gone: there is no ComfyUI at all.

    accepted_before: an earlier process of this worker saw ComfyUI take it.
    """
    if gone:
        return failure(Reason.COMFY_LOST, "ComfyUI is gone: its socket has ended and nothing answers")
    if step is Step.UNSURE:
        return failure(Reason.COMFY_UNREACHABLE, "ComfyUI did not take the prompt, each time it was sent")
    if step is Step.SOUGHT and not accepted_before:
        return failure(Reason.NOT_ACCEPTED, "the worker was restarted before ComfyUI had the prompt")
    if step is Step.SOUGHT:
        return failure(Reason.WORKER_LOST, "the worker was restarted, and ComfyUI no longer has the prompt")
    return failure(
        Reason.COMFY_LOST, "ComfyUI does not know the prompt any more: it was restarted, or somebody deleted it"
    )


def results(files: Sequence[OutputFile], pictures: Sequence[FromSocket]) -> tuple[Source, ...]:
    """The files that are the prompt's result, each once.

    Previews (folder "temp") are results only of a workflow that saves nothing else: an editor's PreviewImage beside
    a SaveImage shows the same picture again.
    """
    unique = {(file.folder, file.subfolder, file.filename): file for file in reversed(files)}
    ordered = [file for file in files if unique[file.folder, file.subfolder, file.filename] is file]
    saved = [FromComfy(file) for file in ordered if file.folder == "output"]
    if saved or pictures:
        return (*saved, *pictures)
    return tuple(FromComfy(file) for file in ordered if file.folder == "temp")
