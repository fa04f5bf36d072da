"""The one tree of errors that crosses package borders.

FleetError
 ├─ ConfigError            an operator's file, flag or key is wrong: exit 2 with this text
 ├─ StoreError             the disk or the database failed: stop, never acknowledge again
 └─ ProtocolError
     ├─ LocalProtocolError   we built a message the contract forbids: our bug
     └─ RemoteProtocolError  the peer did: answer INVALID, count, go on
"""

from __future__ import annotations


class FleetError(Exception):
    """Base of every error this product raises on purpose; its text is written for people."""


class ConfigError(FleetError):
    """A setting, flag or key file is unusable. The text names file, line, section, key and the mend."""


class StoreError(FleetError):
    """The durable store cannot be trusted any further. The holder must exit without acknowledging anything."""


class ProtocolError(FleetError):
    """A message breaks the contract."""


class LocalProtocolError(ProtocolError):
    """This process built the message: fix the caller."""


class RemoteProtocolError(ProtocolError):
    """A peer sent the message: answer with `code`, count it, change nothing.

    code: VERSION (another contract), UNKNOWN (no such type), FORBIDDEN (not for this role), INVALID (shape or range).
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
