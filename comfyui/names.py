"""The rule for every file name that crosses between users, the fleet and ComfyUI.

Names come from workflows, uploads and ComfyUI's own answers; all are untrusted, and each ends up joined to a folder
on somebody's disk. One rule for all: relative, printable, normalised, no way up and no way out. Pure.
"""

import re
import unicodedata
from typing import Final

NAME_BYTES: Final = 200
LEVELS: Final = 8
FOLDERS: Final = frozenset({"input", "output", "temp"})

_DRIVE = re.compile(r"[A-Za-z]:")
_ANNOTATION = re.compile(r"\s*\[(input|output|temp)\]\Z")


def path_fault(path: str, *, limit_bytes: int = NAME_BYTES) -> str | None:
    """Why `path` may not be used as a relative path, in words that follow "it"; None when it may."""
    if not path:
        return "is empty"
    if not all(character.isprintable() for character in path):
        return "holds a character that cannot be printed"
    if len(path.encode()) > limit_bytes:
        return f"is longer than {limit_bytes} bytes"
    if path.startswith("/") or _DRIVE.match(path):
        return "is absolute; give a relative path"
    if "\\" in path:
        return "holds a backslash"
    if ".." in path:
        return 'holds ".."'
    parts = path.split("/")
    if len(parts) > LEVELS:
        return f"has more than {LEVELS} levels"
    if any(not part.strip() or part.startswith(".") for part in parts):
        return "has an empty or hidden part"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode's composed form (NFC)"
    return None


def name_fault(name: str, *, limit_bytes: int = NAME_BYTES) -> str | None:
    """As `path_fault`, for one file name without folders."""
    if "/" in name:
        return "holds a slash"
    return path_fault(name, limit_bytes=limit_bytes)


def split_annotation(value: str) -> tuple[str, str]:
    """("a.png", "output") for "a.png [output]". Without a mark ComfyUI reads its input folder."""
    mark = _ANNOTATION.search(value)
    return (value[: mark.start()], mark[1]) if mark else (value, "input")
