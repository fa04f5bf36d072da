"""What a Submit asks for: one job, or a group of them taken whole, and what makes two submits the same. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from broker.protocol import client
from broker.protocol.records import Member
from broker.protocol.value import replace

#: Of one job, alone or in a group: what a dispatch and a reply can carry.
WORKFLOW_BYTES: Final = 8 << 20
FORM_BYTES: Final = 1 << 20
#: Of the names in what one job needs: they stay in memory while it waits, and a hundred thousand may.
NEEDS_CHARS: Final = 64 << 10


def body_sha256(said: client.Submit) -> str:
    """What makes two submits with one idempotency key the same: what a person chose, not what was read from it."""
    files = (f"{file.name}\x00{file.sha256}" for file in said.files)
    sizes = (f"{part.workflow_bytes} {part.form_bytes}" for part in said.parts)
    lists = ("\x00".join(many) for many in (said.labels, files, sizes, said.needs.labels))
    words = (said.template, str(said.priority), said.pin, str(said.deadline_ms), str(said.needs.vram_bytes), *lists)
    digest = hashlib.sha256()
    for part in (said.workflow, said.form, *(word.encode() for word in words)):
        digest.update(b"%d\x00" % len(part))
        digest.update(part)
    return digest.hexdigest()


def ids(said: client.Submit) -> tuple[str, ...]:
    """The ids of the jobs it would make, and of their group: no other job may have one of them, and no other group."""
    return said.job_id, *(part.job_id for part in said.parts)


def fault(said: client.Submit) -> str:
    """Why these jobs cannot be taken, however empty the queue is; "" when they can."""
    if said.parts:
        ids = {part.job_id for part in said.parts}
        if len(ids) < max(2, len(said.parts)):
            return "a group has two jobs or more, and each an id of its own"
        if said.job_id in ids:
            return "the id of a group is none of its jobs'"
        sizes = [(part.workflow_bytes, part.form_bytes) for part in said.parts]
        if tuple(map(sum, zip(*sizes, strict=True))) != (len(said.workflow), len(said.form)):
            return "the sizes of a group's workflows and forms do not add up to what came with it"
    for number, (job, _) in enumerate(jobs_of(said), 1):
        which = f"job {number} of the group: " if said.parts else ""
        if len(job.workflow) > WORKFLOW_BYTES:
            return f"{which}its workflow has {len(job.workflow)} bytes; the limit is {WORKFLOW_BYTES}"
        if len(job.form) > FORM_BYTES:
            return f"{which}its form has {len(job.form)} bytes; the limit is {FORM_BYTES}"
        chars = sum(map(len, job.needs.nodes)) + sum(map(len, job.needs.models))
        if chars > NEEDS_CHARS:
            return f"{which}the node classes and models it needs have {chars} characters; the limit is {NEEDS_CHARS}"
    return ""


def jobs_of(said: client.Submit) -> Iterator[tuple[client.Submit, Member | None]]:
    """Each job as if it had been submitted alone, and its place in the group. The first keeps the idempotency key."""
    if not said.parts:
        yield said, None
        return
    workflow_at = form_at = 0
    for index, part in enumerate(said.parts):
        workflow_end, form_end = workflow_at + part.workflow_bytes, form_at + part.form_bytes
        alone = replace(
            said,
            job_id=part.job_id,
            idempotency_key="" if index else said.idempotency_key,
            parts=(),
            workflow=said.workflow[workflow_at:workflow_end],
            form=said.form[form_at:form_end],
        )
        yield alone, Member(group_id=said.job_id, index=index, size=len(said.parts))
        workflow_at, form_at = workflow_end, form_end
