"""docs/deploy.md: every command that reaches into a container is run as it stands there, in a rehearsal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.containers.compose import ROOT
from tests.contract.containers.rehearsal import STATE, Rehearsal, rehearsal
from tests.process.journal import until

PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS: list[str] = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
INTO = re.compile(
    r"docker compose (?:run|exec)(?: --rm| --no-TTY| --no-deps)* (?P<service>\S+) (?P<command>.*?)"
    r"(?: (?P<way>[<>])(?P<file>\S+))?"
)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if re.match(r"docker compose (run|exec) ", line)]
#: Words that only one command has.
STEPS = (
    "exec broker cat", "new-token ann", "new-token bob", "sed -i", "scripts/keys worker", "<b-gpu0.ini",
    "scripts/keys list", "scripts/keys revoke", ">data.tar", ">keys.tar", "<data.tar", "<keys.tar",
)  # fmt: skip


class Operator:
    """Has one folder on every machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def type(self, stage: Rehearsal, step: str) -> str:
        """The output of that command of the page."""
        assert step in STEPS
        found = INTO.fullmatch(line_of(step))
        assert found is not None, f"not understood: {line_of(step)}"
        file = self.folder / found["file"] if found["file"] else None
        given = file.read_bytes() if file is not None and found["way"] == "<" else b""
        printed = stage.pipe(found["service"], *shlex.split(found["command"]), given=given)
        if file is not None and found["way"] == ">":
            file.write_bytes(printed)
            return ""
        return printed.decode().strip()


def line_of(step: str) -> str:
    lines: list[str] = [line for line in COMMANDS if step in line]
    assert len(lines) == 1, f"{step}: {lines}"
    return lines[0]


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("first"), "head,gpu0,gpu1") as stage:
        assert stage.run("keys").returncode == 0
        for name in ("broker", "web"):
            stage.up(name)
        yield stage


def tokens(stage: Rehearsal) -> list[str]:
    return [line.split()[0] for line in stage.run("keys", "cat", f"{STATE}/web/tokens").stdout.splitlines()]


def test_people(operator: Operator, first: Rehearsal) -> None:
    assert "workers" in first.call("GET", "/api/v1/workers", operator.type(first, "exec broker cat"))
    ann, bob = operator.type(first, "new-token ann"), operator.type(first, "new-token bob")
    assert tokens(first) == ["admin", "ann", "bob"]
    until(lambda: first.accepts(ann) and first.accepts(bob), "both to be known")
    operator.type(first, "sed -i")
    assert tokens(first) == ["admin", "bob"]
    until(lambda: not first.accepts(ann), "ann to be shut out")
    assert first.accepts(bob)


def test_a_second_machine(operator: Operator, first: Rehearsal, tmp_path: Path) -> None:
    operator.type(first, "scripts/keys worker")
    with rehearsal(tmp_path, "gpu0") as second:
        assert second.run("keys").returncode == 1
        operator.type(second, "<b-gpu0.ini")
        assert second.run("keys").returncode == 0
        assert "name = b-gpu0" in second.run("worker-0", "cat", f"{STATE}/workers/gpu0.ini").stdout
        assert second.run("worker-0", "stat", "--format", "%a", f"{STATE}/workers/gpu0.ini").stdout == "600\n"
    assert " b-gpu0 " in operator.type(first, "scripts/keys list")
    operator.type(first, "scripts/keys revoke")
    assert " b-gpu0 " not in operator.type(first, "scripts/keys list")


def test_backup_and_restore(operator: Operator, first: Rehearsal, tmp_path: Path) -> None:
    everything = ("sh", "-c", f"cd {STATE} && sha256sum keys/* web/* workers/*")
    first.processes["web"].kill()
    first.processes["broker"].kill()
    operator.type(first, ">data.tar")
    operator.type(first, ">keys.tar")
    with rehearsal(tmp_path, "head,gpu0,gpu1") as anew:
        operator.type(anew, "<keys.tar")
        operator.type(anew, "<data.tar")
        assert anew.run("keys", *everything).stdout == first.run("keys", *everything).stdout
        assert anew.run("keys").returncode == 0
        assert anew.run("keys", *everything).stdout == first.run("keys", *everything).stdout
        anew.up("broker")
        assert "fleet.sqlite3" in anew.run("broker", "ls", f"{STATE}/data").stdout


def test_no_command_of_the_page_is_left_out() -> None:
    assert {line_of(step) for step in STEPS} == set(COMMANDS)
