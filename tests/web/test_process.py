"""`python -m web` as an operator meets it: one ready line, a clean stop, one clear line when it cannot start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq.green as zmq

from tests.web.fake_broker import FakeBroker, a_job
from tests.web.stage import PATIENCE_S, Stage, Watcher, until
from web.frames import Close

ROOT = Path(__file__).resolve().parents[2]


class Remote(Stage):
    """A stage whose web process is a child of this one."""

    def __init__(self, *flags: str) -> None:
        self.context: Any = zmq.Context()
        self.broker = FakeBroker(self.context)
        self._open = []
        network = {name: getattr(self.broker.network, name) for name in ("clients", "events", "files")}
        given = [f"--set=network.{name}={endpoint}" for name, endpoint in network.items()]
        self.child = run("--port", "*", *given, *flags)
        assert self.child.stdout is not None
        self.line = self.child.stdout.readline()

    def close(self) -> None:
        for opened in self._open:
            opened.close()
        self.child.kill()
        self.child.communicate()
        self.broker.close()
        self.context.destroy(linger=0)


def run(*flags: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    command = [sys.executable, "-m", "web", *flags]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=ROOT,
        env=environ,
    )  # fmt: skip


@pytest.fixture
def remote() -> Iterator[Remote]:
    with contextlib.closing(Remote()) as made:
        match = re.fullmatch(r"ready web url=http://127\.0\.0\.1:([0-9]+)\n", made.line)
        assert match is not None, made.line
        made.port = int(match[1])
        yield made


def test_it_serves_once_it_says_so_and_a_sigterm_ends_it_cleanly(remote: Remote) -> None:
    until(lambda: remote.get("/healthz").json["connected"])
    job = remote.broker.put(a_job())
    browser = remote.watch()
    until(lambda: remote.get(f"/api/v1/jobs/{job.job_id}").status == 200)
    remote.child.send_signal(signal.SIGTERM)
    assert browser.closed() == Close.GOING_AWAY
    out, log = remote.child.communicate(timeout=PATIENCE_S)
    assert remote.child.returncode == 0
    assert out == "" and "Traceback" not in log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", remote.port))


def test_a_request_under_way_is_answered_before_the_end(remote: Remote) -> None:
    connection = remote.raw(
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Connection: close\r\nExpect: 100-continue\r\n\r\n"
    )
    connection.head()
    remote.child.send_signal(signal.SIGTERM)
    until(lambda: not accepts(remote.port))
    connection.send(b"{}")
    assert b" 422 " in connection.head()
    assert remote.child.wait(PATIENCE_S) == 0


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: in the very moment it stops listening
        return False
    return True


def test_a_killed_one_leaves_nothing_that_hinders_the_next(remote: Remote) -> None:
    remote.child.kill()
    remote.child.wait(PATIENCE_S)
    with contextlib.closing(Remote("--port", str(remote.port))) as second:
        assert second.line == remote.line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "token_file"),
        (["--host", "::"], "token_file"),
        (["--port", "70000"], "port"),
        (["--set=web.token_file=nothing-there"], "token_file"),
        (["--set=web.prot=1"], "web"),
        (["--set=security.curve=yes", "--set=security.keys=nothing-there"], "keys"),
    ],
)
def test_what_it_cannot_start_with_is_exit_2_and_one_line(flags: list[str], words: str) -> None:
    child = run("--port", "*", *flags)
    out, log = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 2
    assert out == "" and "Traceback" not in log
    [told] = [line for line in log.splitlines() if line.startswith("comfyfleet: ")]
    assert words in told


def test_a_port_that_is_taken_is_exit_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        child = run("--port", str(taken.getsockname()[1]))
        _, log = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 2 and "cannot listen" in log


def test_off_loopback_it_starts_with_a_token_file_and_lets_nobody_in_without(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ann {hashlib.sha256(b'secret').hexdigest()}\n")
    tokens.chmod(0o600)
    with contextlib.closing(Remote("--host", "0.0.0.0", f"--set=web.token_file={tokens}")) as remote:
        match = re.fullmatch(r"ready web url=http://localhost:([0-9]+)\n", remote.line)
        assert match is not None
        remote.port = int(match[1])
        assert remote.get("/api/v1/stats").status == 401
        assert remote.get("/api/v1/stats", Authorization="Bearer secret").status == 200
        assert Watcher(remote.handshake()).connection.head().startswith(b"HTTP/1.1 101 ")


def test_unpatched_it_does_not_start() -> None:
    program = (
        "from broker.runtime.entry import run_main\nfrom broker.runtime.config import Config\n"
        "from web.process import Web\nrun_main(lambda: Web(Config(), None))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python -m web" in done.stderr


def test_a_part_that_fails_ends_the_process() -> None:
    """The process must not go on with a page that is out of date: a supervisor starts a fresh one."""
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import web.__main__ as main, web.feed as feed\n"
        "def broken(self): raise RuntimeError('boom')\n"
        "feed.Feed.run = broken\n"
        "main.run_main(main.main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--port", "*"], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 1
    assert "a part of this process failed" in done.stderr
