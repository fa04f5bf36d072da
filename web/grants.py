"""Which stored files an owner may use because that owner sent them to this process. Bounded; forgotten at a restart.

Files carry no owner: they are named by their content. An output is reached through its job; this is for uploads.
"""

from __future__ import annotations

from typing import Final

MAX_OWNERS: Final = 1_000
MAX_FILES: Final = 1_000


class Grants:
    def __init__(self) -> None:
        #: Owner -> digests; both in the order of their last grant.
        self._files: dict[str, dict[str, None]] = {}

    def add(self, owner: str, sha256: str) -> None:
        files = self._files.pop(owner, {})
        files.pop(sha256, None)
        files[sha256] = None
        if len(files) > MAX_FILES:
            del files[next(iter(files))]
        self._files[owner] = files
        if len(self._files) > MAX_OWNERS:
            del self._files[next(iter(self._files))]

    def has(self, owner: str, sha256: str) -> bool:
        return sha256 in self._files.get(owner, {})
