"""The services of the compose file as plain processes, where no container engine is: its commands, its environment, its
paths, names and ports, in a mount and a network namespace of their own.

What an engine would add (images, users, volumes, cards) is not there: everything runs as the tests' user, and ComfyUI
is the stand-in behind ComfyUI's own flags. The checkout lies at the image's place; all but the volumes is read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.fleet import Process
from tests.contract.containers import compose
from tests.contract.containers.compose import ROOT

CODE, STATE = "/opt/comfyfleet", "/var/lib/comfyfleet"
#: Makes an ordinary user the root of a namespace of his own.
OWN_USER = ["--user", "--map-root-user"] if os.geteuid() != 0 else []
SETUP = f"""
set -e
ip link set lo up
mount --bind "$2" /etc/hosts
mount --bind "$1" /mnt
mount -o remount,bind,ro /mnt
main="$(cat "$3")"
for folder in /opt /var/lib /tmp; do mount -t tmpfs none $folder; done
mkdir -p {CODE} {STATE}/data {STATE}/keys {STATE}/web {STATE}/workers /opt/ComfyUI /opt/data
mount --move /mnt {CODE}
echo "$main" >/opt/ComfyUI/main.py
mount -o remount,bind,ro /
echo ready
exec sleep infinity
"""
#: In ComfyUI's place: takes ComfyUI's flags, and is the stand-in on the same port.
MAIN = f"""
import sys
sys.path.insert(0, "{CODE}")
given = sys.argv[1:]
sys.argv = ["simulator", "--zero-work", "--port", given[given.index("--port") + 1]]
from comfyui.simulator.__main__ import main
sys.exit(main())
"""
#: One call of the page's API, made inside: method, path, token, body.
CALL = """
import sys, urllib.request
method, path, token, body = sys.argv[1:]
headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
request = urllib.request.Request("http://127.0.0.1:8080" + path, body.encode() or None, headers, method=method)
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


class Rehearsal:
    """What `docker compose` would be asked, by the name of the service."""

    def __init__(self, folder: Path, holder: int, profiles: str) -> None:
        self._folder = folder
        self._enter = ["nsenter", f"--target={holder}", "--mount", "--net", *OWN_USER[:1], f"--wdns={CODE}", "--"]
        self._services = compose.services({"COMPOSE_PROFILES": profiles})
        self.processes: dict[str, Process] = {}

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """`docker compose run NAME [COMMAND…]`, to its end."""
        words, environ = self._inside(name, command or self._services[name]["command"]), self._environ(name)
        return subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=60)

    def pipe(self, name: str, *command: str, given: bytes) -> bytes:
        """The same with `given` on its standard input; what it wrote. Raises CalledProcessError when it fails."""
        words, environ = self._inside(name, command), self._environ(name)
        return subprocess.run(words, env=environ, input=given, stdout=subprocess.PIPE, check=True, timeout=60).stdout

    def up(self, name: str) -> str:
        """Start a service; its ready line."""
        command = self._services[name]["command"]
        if name.startswith("comfyui-"):
            command = [f"{CODE}/comfyui/containers/start-comfyui", *command.split()]
        self.processes[name] = Process(name, self._inside(name, command), self._folder, self._environ(name))
        return self.processes[name].ready()

    def healthy(self, name: str) -> bool:
        """Whether its health check passes now."""
        kind, *test = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(name, *test).returncode == 0

    def call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        """The API's answer. Raises CalledProcessError for anything but 2xx."""
        command = [
            f"{CODE}/.venv/bin/python",
            "-c",
            CALL,
            method,
            path,
            token,
            "" if body is None else json.dumps(body),
        ]
        done = self.run("web", *command)
        done.check_returncode()
        return json.loads(done.stdout)

    def accepts(self, token: str) -> bool:
        """Whether the page's API knows this token."""
        try:
            self.call("GET", "/api/v1/jobs", token)
        except subprocess.CalledProcessError:
            return False
        return True

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.child.pid, signal.SIGKILL)  # with what it started beside it, as a container ends
            process.kill()

    def _inside(self, name: str, command: Sequence[str]) -> list[str]:
        assert name in self._services, f"{name} is not started by these profiles"
        return [*self._enter, *command]

    def _environ(self, name: str) -> dict[str, str]:
        paths = {"PATH": f"{CODE}/.venv/bin:{os.environ['PATH']}", "HOME": "/tmp", "COMFYUI_DATA": "/opt/data"}
        given = self._services[name].get("environment", {})
        # In ComfyUI's own image its files lie one folder higher.
        moved = {"WARMUP_PROMPT_FILE": f"{CODE}/comfyui/warmup.json"} if "WARMUP_PROMPT_FILE" in given else {}
        return {**paths, **given, **moved}


@contextmanager
def rehearsal(folder: Path, profiles: str) -> Iterator[Rehearsal]:
    """Skips the test where no namespaces can be had."""
    hosts, main = folder / "hosts", folder / "main.py"
    names = [name for name in compose.services({"COMPOSE_PROFILES": profiles}) if name not in ("keys", "models")]
    hosts.write_text("127.0.0.1 localhost " + " ".join(names) + "\n")
    main.write_text(MAIN)
    isolated = ["unshare", *OWN_USER, "--mount", "--net"]
    if shutil.which("ip") is None or subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a rehearsal needs iproute2, and a machine that allows namespaces")
    command = [*isolated, "bash", "-c", SETUP, "setup", str(ROOT), str(hosts), str(main)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "ready\n"
            stage = Rehearsal(folder, holder.pid, profiles)
            try:
                yield stage
            finally:
                stage.stop()
        finally:
            holder.kill()
