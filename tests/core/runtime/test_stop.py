"""Signals as a descriptor, in processes of their own: plain, with a second thread, and under gevent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from broker.runtime.stop import Stop

PLAIN = """
import zmq
from broker.runtime.stop import Stop
with Stop() as stop:
    poller = zmq.Poller()
    poller.register(stop, zmq.POLLIN)
    print("ready", flush=True)
    poller.poll()
    print("asked" if stop.requested else "woken", flush=True)
    stop.settle()
    print("quiet" if not poller.poll(0) else "loud", flush=True)
    # Not input(): a signal between two of its instructions would wait for the line.
    poller.register(0, zmq.POLLIN)
    poller.poll()
    print("clean", flush=True)
"""
THREADS = (
    """
import threading, signal
started = threading.Event()
def busy():
    started.set()
    threading.Event().wait()
threading.Thread(target=busy, daemon=True).start()
started.wait()
"""
    + PLAIN
)
GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, gevent.hub
from broker.runtime.stop import Stop
with Stop() as stop:
    gevent.spawn(lambda: gevent.sleep(1000))
    print("ready", flush=True)
    gevent.get_hub().wait(gevent.get_hub().loop.io(stop.fileno(), 1))
    print("asked" if stop.requested else "woken", flush=True)
    stop.settle()
    print("quiet", flush=True)
    gevent.get_hub().wait(gevent.get_hub().loop.io(0, 1))
    print("clean", flush=True)
"""


@contextmanager
def started(program: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert line(process) == "ready"
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("program", [PLAIN, THREADS, GEVENT], ids=["plain", "threads", "gevent"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_wakes_the_poll_and_the_process_ends_in_its_own_time(program: str, number: signal.Signals) -> None:
    with started(program) as process:
        process.send_signal(number)
        assert [line(process), line(process)] == ["asked", "quiet"]
        other = signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM
        process.send_signal(other)  # a terminal's Ctrl-C and a supervisor's TERM come together
        assert process.communicate("\n")[0].strip() == "clean"
        assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_same_signal_again_ends_it_at_once(number: signal.Signals) -> None:
    with started(PLAIN) as process:
        process.send_signal(number)
        assert [line(process), line(process)] == ["asked", "quiet"]
        process.send_signal(number)
        assert process.wait(30) == -number


def test_everything_is_as_before_afterwards() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Stop() as stop:
        poller = zmq.Poller()
        poller.register(stop, zmq.POLLIN)
        assert poller.poll(0) == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert poller.poll(10_000)
        assert stop.requested
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert signal.set_wakeup_fd(-1) == -1
