"""Which files are brought, with a ComfyUI and a file channel made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from broker.protocol.records import InputFile
from worker.errands import Porter


class Made:
    """A ComfyUI whose input folder is a set of names."""

    def __init__(self) -> None:
        self.folder: set[str] = set()
        self.asked: list[str] = []

    def has_input(self, name: str, _size_bytes: int) -> bool:
        self.asked.append(name)
        return name in self.folder

    def upload(self, name: str, _data: Any, *, size_bytes: int) -> str:
        assert size_bytes == 0
        self.folder.add(name)
        return name


def porter(comfy: Made) -> Porter:
    done = SimpleNamespace(over=True, fault=None, failure=None)
    courier = SimpleNamespace(download=lambda *_: done, forget=lambda _: None)
    return Porter(cast(Any, comfy), cast(Any, courier), max_file_bytes=1, now_ms=lambda: 0, breathe=lambda: None)


def file(name: str, digit: str) -> InputFile:
    return InputFile(name=name, sha256=digit * 64, size_bytes=0)


FILES = (file("a.png", "a"), file("b.png", "b"), file("c.png", "a"))
NAMES = {"a.png": f"fleet_{'a' * 64}.png", "b.png": f"fleet_{'b' * 64}.png", "c.png": f"fleet_{'a' * 64}.png"}


def finished(stage: Any) -> Any:
    while True:
        try:
            next(stage)
        except StopIteration as end:
            return end.value


def test_a_file_that_has_two_names_is_brought_once() -> None:
    comfy = Made()
    assert finished(porter(comfy).stage(FILES, lambda: None)) == NAMES
    assert comfy.asked == [NAMES["a.png"], NAMES["b.png"]]


def test_files_that_went_with_the_comfyui_that_had_them_are_brought_to_the_next() -> None:
    comfy = Made()
    bringing = porter(comfy)
    stage = bringing.stage(FILES, lambda: None)
    while not comfy.folder:
        next(stage)
    comfy.folder.clear()
    bringing.anew()
    assert finished(stage) == NAMES
    assert comfy.folder == set(NAMES.values())
