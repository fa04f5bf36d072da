"""The outermost frame: one line and a status for each kind of end, and no library that is too old."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import zmq

from broker.protocol.errors import ConfigError, StoreError
from broker.runtime import config, entry


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def status(main: Callable[[], int | None]) -> object:
    with pytest.raises(SystemExit) as caught:
        entry.run_main(main)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], int | None]:
    def main() -> int | None:
        raise error

    return main


def test_what_main_returns_is_the_status(capfd: pytest.CaptureFixture[str]) -> None:
    assert status(lambda: None) == 0
    assert status(lambda: 3) == 3
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("config.ini:3: [web] port: bad\x1b"), 2, "comfyfleet: config.ini:3: [web] port: bad \n"),
        (StoreError("disk full"), 1, "comfyfleet: disk full\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_expected_end_is_one_line(
    error: BaseException, code: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(raising(error)) == code
    assert capfd.readouterr().err == line


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    assert status(raising(RuntimeError("odd"))) == 1
    logged, told = capfd.readouterr().err.splitlines()
    assert told == "comfyfleet: unexpected error, please report it with the log: RuntimeError: odd"
    assert json.loads(logged)["traceback"].endswith("RuntimeError: odd\n")


def test_ready_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    entry.ready("broker", workers="tcp://127.0.0.1:1", clients="tcp://127.0.0.1:2")
    assert capfd.readouterr().out == "ready broker workers=tcp://127.0.0.1:1 clients=tcp://127.0.0.1:2\n"


class TestLibraries:
    def test_those_here_will_do(self) -> None:
        entry.check_libraries()
        assert zmq.zmq_version_info() >= entry.LIBZMQ_MINIMUM

    @pytest.mark.parametrize(("name", "old"), [("msgpack", "1.2.2"), ("gevent", "23.9.1"), ("pyzmq", "25.1.2")])
    def test_an_old_one_stops_the_start(self, monkeypatch: pytest.MonkeyPatch, name: str, old: str) -> None:
        real = importlib.metadata.version
        monkeypatch.setattr(importlib.metadata, "version", lambda n: old if n == name else real(n))
        with pytest.raises(ConfigError, match=f"^{name} {old} is too old: want "):
            entry.check_libraries()

    def test_an_old_libzmq_stops_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 4))
        with pytest.raises(ConfigError, match=r"want 4\.3\.5 or newer"):
            entry.check_libraries()

    def test_one_that_is_not_installed_is_left_to_its_import(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", missing)
        entry.check_libraries()

    def test_the_minimums_are_those_of_the_installation(self) -> None:
        parser = configparser.ConfigParser()
        parser.read(config.DEFAULT_PATH.parent / "setup.cfg")
        required = dict(line.split(">=") for line in parser["options"]["install_requires"].split())
        for name, minimum in entry.MINIMUMS.items():
            assert tuple(int(part) for part in required[name].split("."))[: len(minimum)] == minimum
