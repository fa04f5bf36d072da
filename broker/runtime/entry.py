"""The outermost frame of every process: checks the libraries, turns errors into one line and an exit status.

0: done. 1: it failed, 2: something an operator wrote is wrong; both with one line on stderr, never a traceback (that
goes to the log). Decides nothing about what the process does.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import zmq

from broker.protocol.errors import ConfigError, FleetError
from broker.runtime import logs
from broker.runtime.settings import Log

#: Older ones have holes that our own code cannot close (setup.cfg names them). libzmq comes inside pyzmq.
MINIMUMS: Final = {
    "pyzmq": (26, 0),
    "msgpack": (1, 2, 3),
    "bottle": (0, 13, 2),
    "gevent": (24, 2),
}
LIBZMQ_MINIMUM: Final = (4, 3, 5)


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with what it returns (None: 0)."""
    logs.start(Log())  # until `main` has read its own
    try:
        check_libraries()
        status = main() or 0
    except ConfigError as e:
        status = _told(e, 2)
    except FleetError as e:
        status = _told(e, 1)
    except KeyboardInterrupt:
        status = 130
    except Exception as e:
        logging.getLogger(__name__).exception("unexpected error")
        status = _told(f"unexpected error, please report it with the log: {type(e).__name__}: {e}", 1)
    sys.exit(status)


def ready(process: str, **facts: str) -> None:
    """Say on stdout, in one line, that `process` serves: `ready broker workers=tcp://127.0.0.1:5571 …`."""
    print(" ".join([f"ready {process}", *(f"{name}={value}" for name, value in facts.items())]), flush=True)


def check_libraries() -> None:
    """Raises ConfigError naming a library that is too old to be trusted with a network."""
    for name, minimum in MINIMUMS.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # this process does not need it, or its import says so better
        if tuple(int(part) for part in re.findall(r"\d+", found)[:3]) < minimum:
            raise ConfigError(f"{name} {found} is too old: want {'.'.join(map(str, minimum))} or newer")
    if zmq.zmq_version_info() < LIBZMQ_MINIMUM or not zmq.has("curve"):
        raise ConfigError(
            f"libzmq {zmq.zmq_version()} does not do: want 4.3.5 or newer with CURVE, as in the wheels of pyzmq"
        )


def _told(error: object, status: int) -> int:
    text = "".join(c if c.isprintable() else " " for c in str(error))
    print(f"comfyfleet: {text}", file=sys.stderr)
    return status
