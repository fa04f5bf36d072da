"""Sizes, empty package files, and a text that speaks of the project alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arch.tree import ROOT, committed, pure_files, python_files

PURE_LINES, OTHER_LINES = 400, 500
#: Folders of the machine a file was written on: nobody else has them.
FOREIGN_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/\w|/tmp/rea[l]\b")
#: A page named in passing, neither part of a URL nor of a longer path.
PAGE = re.compile(r"(?<![\w/:.-])(?:\.\./)*[\w-]+(?:/[\w-]+)*\.md\b")
#: What version control and trackers know belongs there.
BOOKKEEPING = re.compile(r"(?i)co-authored[-]by|\bissue [#]?\d\b|\.\./share[d]\b")


def texts() -> Iterator[tuple[Path, str]]:
    for path in committed():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path, content.decode("utf-8", "replace")


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_outgrows_its_reader(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = sorted(((lines_of(path), path) for path in python_files()), reverse=True)
    with capsys.disabled():
        print("\n" + "\n".join(f"{size:5}  {path.relative_to(ROOT)}" for size, path in sizes[:10]))
    pure = set(pure_files())
    too_long = [
        f"{path.relative_to(ROOT)}: {n}" for n, path in sizes if n > (PURE_LINES if path in pure else OTHER_LINES)
    ]
    assert too_long == []


def test_package_files_are_empty() -> None:
    assert [str(p.relative_to(ROOT)) for p in python_files() if p.name == "__init__.py" and p.stat().st_size] == []


def test_no_file_is_named_after_nothing() -> None:
    banned = {"utils", "helpers", "common", "misc"}
    assert [str(p.relative_to(ROOT)) for p in committed() if {p.stem, *p.relative_to(ROOT).parts} & banned] == []


def test_no_text_names_a_folder_of_the_machine_it_was_written_on() -> None:
    assert [hit for path, text in texts() for hit in hits(path, text, FOREIGN_PATH)] == []


def test_no_text_keeps_the_books_of_its_own_making() -> None:
    assert [hit for path, text in texts() for hit in hits(path, text, BOOKKEEPING)] == []


def test_every_page_that_is_named_is_there() -> None:
    names = {path.name for path in committed()}
    named = {hit for path, text in texts() for hit in hits(path, text, PAGE)}
    assert sorted(hit for hit in named if re.split("[ /]", hit)[-1] not in names) == []


def hits(path: Path, text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for match in pattern.finditer(line):
            yield f"{path.relative_to(ROOT)}:{number}: {match[0]}"


@pytest.mark.parametrize("line", ["see /wor" + "k/main", '"/hom' + 'e/ann/x"', "in /tmp/" + "real", "(/Use" + "rs/a"])
def test_a_foreign_path_is_seen(line: str) -> None:
    assert FOREIGN_PATH.search(line)


@pytest.mark.parametrize(
    "line",
    ["https://example.org/ho" + "me/x", "./wor" + "k/x", "a/ro" + "ot/b", "/tm" + "p/x", "/works" + "pace/ComfyUI"],
)
def test_another_path_is_left_alone(line: str) -> None:
    assert not FOREIGN_PATH.search(line)
