"""Whether a container serves, for its health check: `health.py broker`, `web` or `worker`; status 0, or 1 and one line.

broker: its loop lets the web's key in; that loop itself answers handshakes, so one that hangs is found. web: it answers
and hears the broker. worker: it holds a connection to the broker; whether its loop turns is for the broker to tell, who
misses its heartbeat. Changes nothing and leaves no trace in the logs.
"""

from __future__ import annotations

import configparser
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import zmq

STATE = Path(os.environ.get("STATE", "/var/lib/comfyfleet"))
ANSWER_S = 4
ESTABLISHED = "01"


def main() -> None:
    check = {"broker": broker, "web": web, "worker": worker}[sys.argv[1]]
    try:
        trouble = check()
    except (OSError, ValueError, LookupError) as e:
        trouble = f"{type(e).__name__}: {e}"
    if trouble:
        sys.exit(f"{sys.argv[1]}: {trouble}")


def broker() -> str:
    """What is wrong with the broker in this container; empty: nothing."""
    theirs = _settings(STATE / "keys" / "web.ini")
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.curve_publickey = theirs["security"]["public_key"].encode()
        socket.curve_secretkey = theirs["security"]["secret_key"].encode()
        socket.curve_serverkey = theirs["security"]["broker_key"].encode()
        with socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
            socket.connect(theirs["network"]["clients"])
            answered = monitor.poll(ANSWER_S * 1_000)
            socket.disable_monitor()
    return "" if answered else f"no handshake within {ANSWER_S} s"


def web() -> str:
    """What is wrong with the web process in this container, or with its way to the broker."""
    with urllib.request.urlopen("http://127.0.0.1:8080/healthz", timeout=ANSWER_S) as answer:
        return "" if json.load(answer)["connected"] else "does not hear the broker"


def worker() -> str:
    """What is wrong with the worker in this container."""
    ports = {_port(_settings(file)["network"]["workers"]) for file in (STATE / "workers").glob("*.ini")}
    return "" if ports & set(_open_to()) else "not connected to the broker"


def _open_to() -> Iterator[int]:
    """The remote ports of this container's open connections."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            for line in Path(table).read_text().splitlines()[1:]:
                # number, local address:port, remote address:port, state, …: in hexadecimal
                _, _, remote, state, *_ = line.split()
                if state == ESTABLISHED:
                    yield int(remote.rpartition(":")[2], 16)


def _settings(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(delimiters=("=",))
    with path.open(encoding="utf-8") as file:
        parser.read_file(file)
    return parser


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


if __name__ == "__main__":
    main()
