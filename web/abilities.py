"""What the fleet can do: one /object_info joined from those of all workers that are there, or were there last.

The documents are stored files named by their digest, fetched once and kept; joining them is pure (comfyui.catalogue).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from comfyui import catalogue
from web.files import Files, NoSuchFile
from web.hub import Hub

log = logging.getLogger(__name__)

#: Documents kept; a fleet of alike containers has one.
MAX_DOCUMENTS: Final = 32
MAX_DOCUMENT_BYTES: Final = 64 << 20


class Abilities:
    def __init__(self, hub: Hub, files: Files) -> None:
        self._hub = hub
        self._files = files
        #: By digest, in the order of their last use.
        self._documents: dict[str, Mapping[str, object]] = {}
        self._joined: tuple[frozenset[str], Mapping[str, object]] = (frozenset(), {})

    def object_info(self) -> Mapping[str, object] | None:
        """What the workers can do together; None while none was seen that has told.

        Raises BrokerSilent when a document has to be fetched and cannot be.
        """
        wanted = self._hub.abilities()
        found = {digest: document for digest in wanted if (document := self._document(digest)) is not None}
        if not found:
            return None
        if self._joined[0] != found.keys():
            self._joined = (frozenset(found), catalogue.union(found[digest] for digest in sorted(found)))
        return self._joined[1]

    def _document(self, digest: str) -> Mapping[str, object] | None:
        if digest not in self._documents:
            try:
                document: Any = json.loads(self._files.read(digest, MAX_DOCUMENT_BYTES))
            except NoSuchFile:
                return None  # its worker is still storing it
            except (ValueError, RecursionError):
                log.error("a worker's capabilities are not JSON", extra={"fields": {"digest": digest}})
                document = {}
            self._documents[digest] = document if isinstance(document, dict) else {}
            if len(self._documents) > MAX_DOCUMENTS:
                del self._documents[next(iter(self._documents))]
        self._documents[digest] = self._documents.pop(digest)
        return self._documents[digest]
