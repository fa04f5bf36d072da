"""The templates of this web process: those that come with the program, and those that were added, in their own folder.

Owns what is written into that folder. A template appears there whole or not at all, and is read again at the next
start; another web process over the same folder learns of it then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from comfyui.library import BUILT_IN, load_templates
from comfyui.offering import Drafted
from comfyui.template import Template

log = logging.getLogger(__name__)


class Taken(Exception):
    """There is a template of this name already."""


class Library(Mapping[str, Template]):
    """By name, in the order of the names."""

    def __init__(self, own: Path) -> None:
        """own: the folder of the added ones; it need not be there."""
        self._own = own
        self._built_in = _load(BUILT_IN)
        self._added = _load(own) if own.exists() else {}

    def __getitem__(self, name: str) -> Template:
        return self._added[name] if name in self._added else self._built_in[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._built_in, *self._added}))

    def __len__(self) -> int:
        return len({*self._built_in, *self._added})

    def is_own(self, name: str) -> bool:
        """Whether it was added here, so that it can be deleted here."""
        return name in self._added

    def add(self, drafted: Drafted) -> None:
        """Write it down, then offer it. Raises Taken; OSError when the folder cannot be written to."""
        name = drafted.template.name
        if name in self or (self._own / name).exists():
            raise Taken(f"there is a template {name} already; delete it first or take another name")
        self._own.mkdir(parents=True, exist_ok=True)
        fresh = self._own / f".{uuid.uuid4().hex}"  # a name that is not read as a template
        fresh.mkdir()
        try:
            for file, content in drafted.files.items():
                _write(fresh / file, content)
            fresh.rename(self._own / name)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        _sync(self._own)
        self._added[name] = drafted.template

    def remove(self, name: str) -> None:
        """Take an added one away; a built-in one of the same name is there again. Raises OSError."""
        gone = self._own / f".{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):  # another web process, or a person, was quicker
            (self._own / name).rename(gone)
        _sync(self._own)
        shutil.rmtree(gone, ignore_errors=True)
        del self._added[name]


def _load(folder: Path) -> dict[str, Template]:
    """The templates that can be used; what is wrong with the others is told in the log."""
    templates, complaints = load_templates(folder)
    for complaint in complaints:
        log.error("a template is left out", extra={"fields": {"template": complaint.name, "why": str(complaint)}})
    return templates


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    """Make a rename in it outlive a power cut, where folders can be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
