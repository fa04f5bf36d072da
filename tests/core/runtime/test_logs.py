"""The log: what a line looks like, what never gets into it, and that it holds nobody up."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.runtime import logs
from broker.runtime.settings import Log

SECRET = "c[QGgXVAOgchMAP8Oz$nnqW}%B]>/9K8rKmZWV4/"
Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What was logged since, line by line; logging is as before afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level

    def read() -> list[str]:
        return capfd.readouterr().err.splitlines()

    yield read
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def one(lines: Lines) -> dict[str, Any]:
    (line,) = lines()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def start() -> None:
    logs.start(Log(format="json"), [SECRET, ""])


class TestJson:
    def test_one_object_with_the_facts(self, lines: Lines) -> None:
        start()
        logging.getLogger("broker.server").info("worker %s", "lost", extra={"fields": {"worker": "gpu-1", "held": 2}})
        found = one(lines)
        assert found.pop("utc").endswith("Z")
        assert found == {"level": "info", "from": "broker.server", "text": "worker lost", "worker": "gpu-1", "held": 2}

    def test_what_a_stranger_wrote_cannot_forge_a_line_or_drive_a_terminal(self, lines: Lines) -> None:
        start()
        evil = 'x\n{"level": "info"}\r\x1b[2J\x00\x9b\u202e"'
        logging.getLogger("a").warning(evil, extra={"fields": {"name": evil, "level": "info", "text": "forged"}})
        (raw,) = lines()
        assert raw.isascii()
        assert raw.isprintable()
        found = json.loads(raw)
        assert (found["text"], found["name"], found["level"]) == (evil, evil, "warning")

    def test_long_fields_are_cut(self, lines: Lines) -> None:
        start()
        logging.getLogger("a").info("é" * 5_000, extra={"fields": {"blob": "x" * 100_000}})
        found = one(lines)
        assert len(found["text"].encode()) <= 2_048 + len("…".encode())
        assert len(found["blob"]) == 2_049

    def test_secrets_are_masked_by_value_and_by_name(self, lines: Lines) -> None:
        start()
        fields = {
            "why": f"<{SECRET}>",
            "access_token": "abc",
            "Authorization": "Bearer abc",
            "cookie": 1,
            "token_file": "t",
        }
        logging.getLogger("a").info("key %s", SECRET, extra={"fields": fields})
        found = one(lines)
        assert found["text"] == "key ***"
        assert (found["why"], found["token_file"]) == ("<***>", "t")
        assert {found[name] for name in ("access_token", "Authorization", "cookie")} == {"***"}

    def test_a_traceback_is_one_field(self, lines: Lines) -> None:
        start()
        try:
            raise RuntimeError("x" * 3_000 + SECRET + "y" * 2_020)
        except RuntimeError:
            logging.getLogger("a").exception("broken")
        found = one(lines)
        assert found["traceback"].endswith("***" + "y" * 2_020 + "\n")
        assert len(found["traceback"]) <= 2_048

    def test_a_call_with_wrong_arguments_is_told_and_does_not_raise(self, lines: Lines) -> None:
        start()
        # The message is handed over as the test runner's own handlers would raise.
        record = logging.LogRecord("a", logging.INFO, __file__, 1, "%d pieces", ("three",), None)
        logging.getLogger().handlers[0].handle(record)
        assert one(lines)["text"] == "unloggable: '%d pieces'"

    def test_lone_surrogates_and_level(self, lines: Lines) -> None:
        start()
        logging.getLogger("a").debug("not wanted")
        logging.getLogger("a").info("\ud800")
        assert one(lines)["text"] == "\ud800"


def test_text_is_printable_and_carries_the_facts(lines: Lines) -> None:
    logs.start(Log(format="text", level="debug"))
    logging.getLogger("broker.gate").debug("refused\x1b[2J", extra={"fields": {"key": "a\nb"}})
    (line,) = lines()
    assert line.endswith(r"DEBUG   broker.gate: refused\x1b[2J key=a\nb")


FLOOD = """
import logging, sys
from broker.runtime import logs
from broker.runtime.settings import Log
logs.start(Log(format="json"))
log = logging.getLogger("flood")
for i in range(int(sys.argv[1])):
    log.info("line", extra={"fields": {"i": i, "pad": "x" * 500}})
print("done", flush=True)
sys.stdin.readline()
log.info("after")
"""


@pytest.fixture
def flood(tmp_path: Path) -> str:
    path = tmp_path / "flood.py"
    path.write_text(FLOOD)
    return str(path)


def test_a_pipe_that_nobody_reads_holds_nothing_up_and_losses_are_counted(flood: str) -> None:
    with subprocess.Popen(
        [sys.executable, flood, "2000"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "done\n"
        os.set_blocking(process.stderr.fileno(), False)
        early = process.stderr.read()
        os.set_blocking(process.stderr.fileno(), True)
        process.stdin.write("\n")
        process.stdin.close()
        found = [json.loads(line) for line in (early + process.stderr.read()).splitlines()]
    assert process.returncode == 0
    kept = [line["i"] for line in found if line["text"] == "line"]
    assert kept == list(range(len(kept)))
    dropped = sum(line["count"] for line in found if line["text"] == "lines dropped")
    assert dropped > 0
    assert found[-1]["text"] in ("after", "lines dropped")
    assert len(kept) + dropped in (2_000, 2_001)


def test_a_closed_pipe_is_no_error(flood: str) -> None:
    with subprocess.Popen(
        [sys.executable, flood, "10"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0
