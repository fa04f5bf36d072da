"""One line to standard error for each thing worth knowing: JSON for machines, plain text on a terminal.

Never raises into its caller and never waits: what a full pipe does not take is kept up to a bound, then dropped and
counted. Whatever a stranger wrote arrives escaped, cut and without secrets. Owns a descriptor of its own for stderr.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import stat
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any

from broker.runtime.settings import Log

_MAX_FIELD_BYTES = 2_048
_MAX_WAITING_BYTES = 64 << 10
_LAST_WORDS_S = 0.5
_SECRET_NAME = re.compile(r"(?:secret|secret_key|api_key|token|password|authorization|cookie)$", re.IGNORECASE)


def start(log: Log, secrets: Iterable[str] = ()) -> None:
    """Send the log of this process to stderr, as [log] says, without these texts.

    A call passes facts as `log.info("worker lost", extra={"fields": {"worker": name}})`.
    """
    as_text = log.format == "text" or (log.format == "auto" and os.isatty(2))
    handler = _Stderr(_descriptor(), _Lines(as_text, tuple(secrets)))
    root = logging.getLogger()
    for earlier in root.handlers:
        if isinstance(earlier, _Stderr):
            earlier.close()
    root.handlers[:] = [handler]
    root.setLevel(log.level.upper())


class _Lines(logging.Formatter):
    def __init__(self, as_text: bool, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._as_text = as_text
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        instant = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, Any] = {**getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[1] is not None:
            # Masked before it is cut, or half a secret would stay; the end of a traceback says the most.
            told = self._masked("".join(traceback.format_exception(record.exc_info[1])))
            fields["traceback"] = told.encode("utf-8", "backslashreplace")[-_MAX_FIELD_BYTES:].decode("utf-8", "ignore")
        shown = {name: self._field(name, value) for name, value in fields.items()}
        text = self._clean(record.getMessage())
        if self._as_text:
            facts = "".join(f" {name}={_printable(value)}" for name, value in shown.items())
            return f"{instant:%H:%M:%S} {record.levelname:7} {record.name}: {_printable(text)}{facts}"
        utc = instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"utc": utc, "level": record.levelname.lower(), "from": record.name, "text": text}
        return json.dumps({**head, **shown, **head})  # a field cannot stand in for the head, nor come before it

    def _field(self, name: str, value: Any) -> Any:
        if _SECRET_NAME.search(name):
            return "***"
        return value if value is None or isinstance(value, (bool, int, float)) else self._clean(str(value))

    def _clean(self, text: str) -> str:
        text = self._masked(text)
        raw = text.encode("utf-8", "backslashreplace")
        return text if len(raw) <= _MAX_FIELD_BYTES else raw[:_MAX_FIELD_BYTES].decode("utf-8", "ignore") + "…"

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Stderr(logging.Handler):
    def __init__(self, descriptor: int, lines: _Lines) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting = b""
        self._dropped = 0
        self.setFormatter(lines)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  a log call with wrong arguments must not stop whoever made it
            line = json.dumps({"level": "error", "from": record.name, "text": f"unloggable: {record.msg!r}"[:200]})
        self.flush()
        if self._dropped and len(self._waiting) < _MAX_WAITING_BYTES // 2:
            lost = json.dumps({"level": "warning", "from": __name__, "text": "lines dropped", "count": self._dropped})
            self._dropped = 0
            line = f"{lost}\n{line}"
        if len(self._waiting) + len(line) > _MAX_WAITING_BYTES:
            self._dropped += 1
        else:
            self._waiting += line.encode("utf-8", "backslashreplace") + b"\n"
            self.flush()

    def flush(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]
        except BlockingIOError:
            return
        except OSError:  # nobody listens any more, and there is nobody to tell
            self._waiting = b""

    def close(self) -> None:
        """At the exit of the process: the last lines are worth a short wait for a slow reader."""
        deadline = time.monotonic() + _LAST_WORDS_S
        while self._waiting and time.monotonic() < deadline:
            self.flush()
            time.sleep(0.01)
        if self._descriptor > 2:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()


def _descriptor() -> int:
    """A descriptor for stderr that never blocks.

    O_NONBLOCK belongs to the open file, which other processes share: hence a fresh one for a pipe or a terminal. A file
    does not block, and a second opening would have its own offset; the journal behind a socket always reads.
    """
    if sys.__stderr__ is None:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # started without: 2 will be some other file before long
    try:
        if stat.S_ISFIFO(os.fstat(2).st_mode) or os.isatty(2):
            return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return 2
    return 2


def _printable(value: Any) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
