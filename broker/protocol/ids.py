"""The shapes of every id on the wire, and the two ids that are computed rather than drawn.

Never draws randomness: whoever needs a fresh id makes it at the edge and passes it in.
"""

from __future__ import annotations

import re
import uuid

#: A job's id for life: a canonical lower-case UUID, 128 random bits, chosen by whoever submits.
JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: One process life of a worker or client, and its ZeroMQ routing id: 32 hex digits, 128 random bits.
SESSION_ID = re.compile(r"[0-9a-f]{32}")
#: The content address of a file or a capability document.
SHA256 = re.compile(r"[0-9a-f]{64}")
#: The configured name of a worker: safe in topics, file names, URLs and logs.
WORKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_PROMPT_NAMESPACE = uuid.UUID("5f0bf1f5-6c0c-5b7e-9d0a-3d4f4b8a1e11")


def prompt_id_for(job_id: str, attempt: int) -> str:
    """The prompt_id an attempt asks ComfyUI for.

    Computed, so that a restarted worker finds a prompt whose ACCEPTED never left the old process.
    """
    return str(uuid.uuid5(_PROMPT_NAMESPACE, f"{job_id}/{attempt}"))
