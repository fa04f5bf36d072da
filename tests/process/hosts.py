"""Two hosts on one cable: network namespaces with a pair of virtual interfaces, gone when the test is over."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

#: The first host's address on the cable. Private to the two namespaces: nothing outside can see it.
NEAR_ADDRESS, FAR_ADDRESS = "10.203.0.1", "10.203.0.2"


@contextmanager
def two_hosts() -> Iterator[tuple[list[str], list[str]]]:
    """Command prefixes that run what follows on the one host and on the other. Skips the test where it cannot."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    near, far = f"cf{os.getpid()}n", f"cf{os.getpid()}f"
    if subprocess.run(["ip", "netns", "add", near], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no network namespaces")
    try:
        for command in (
            f"ip netns add {far}",
            f"ip link add {near} netns {near} type veth peer name {far} netns {far}",
            f"ip -n {near} addr add {NEAR_ADDRESS}/30 dev {near}",
            f"ip -n {far} addr add {FAR_ADDRESS}/30 dev {far}",
            *(f"ip -n {host} link set {device} up" for host in (near, far) for device in ("lo", host)),
        ):
            subprocess.run(command.split(), check=True)
        yield ["ip", "netns", "exec", near], ["ip", "netns", "exec", far]
    finally:
        for host in (near, far):
            subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)
