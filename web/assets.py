"""What the pages load beside themselves, as a browser gets it: scripts without what only people read, comments and
indents, and everything packed for whoever can unpack it.

Reads the files of static/ and nothing else, each once until it is changed.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import re
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".css": "text/css; charset=UTF-8",
    ".js": "text/javascript; charset=UTF-8",
    ".svg": "image/svg+xml",
}
_NAME: Final = re.compile(r"[a-z]+\.[a-z]+")
#: Comments that have their lines to themselves.
_COMMENT: Final = re.compile(r"^[ \t]*(?://.*|/\*(?:[^*]|\*(?!/))*\*/)[ \t]*$", re.MULTILINE)
_INDENT: Final = re.compile(r"^[ \t]+", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Asset:
    media_type: str
    data: bytes
    #: The same, by gzip.
    packed: bytes
    etag: str


def asset(name: str) -> Asset | None:
    """The file of that name; None where there is none."""
    path = STATIC / name
    if _NAME.fullmatch(name) is None or path.suffix not in TYPES or not path.is_file():
        return None
    return _read(path, path.stat().st_mtime_ns)


def bare(script: str) -> str:
    """The script without comments and indents; every line keeps its number, for the errors that name it. No text of a
    script may go over the end of a line."""
    return _INDENT.sub("", _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), script))


@functools.lru_cache(maxsize=256)
def _read(path: Path, _changed_ns: int) -> Asset:
    text = path.read_text("utf-8")
    data = (bare(text) if path.suffix == ".js" else text).encode()
    packed = gzip.compress(data, mtime=0)
    return Asset(TYPES[path.suffix], data, packed, f'W/"{hashlib.sha256(data).hexdigest()[:32]}"')
