"""provisioning.sh with a ComfyUI, a pip, a repository and a model table of the test's own."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.contract.containers.compose import FOLDER

#: Takes `list` and `install` as pip does, and writes down what it was asked.
PIP = """#!/bin/sh
echo "$*" >>"$0.log"
[ "$1" = install ] || exec echo "torch==2.8.0"
while [ "$1" != --constraint ]; do shift; done
cp "$2" "$0.constraint"
test ! -e "$0.broken"
"""


class Provisioning:
    """One ComfyUI folder, and what is needed to provision it any number of times."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "ComfyUI"
        self.models = self.home / "models"
        self.nodes = self.home / "custom_nodes" / "ComfyUI_StoryDiffusion"
        self.table = folder / "models.txt"
        self.needs = folder / "needs.txt"
        self.pip = folder / "pip"
        self.repository = folder / "repository"
        (self.home / "custom_nodes").mkdir(parents=True)
        self.table.write_text("# nothing yet\n")
        self.needs.write_text("diffusers==0.35.1\n")
        self.pip.write_text(PIP)
        self.pip.chmod(0o755)
        self.repository.mkdir()
        self._git("init", "--quiet")
        self.commit = self.publish("NODE_CLASS_MAPPINGS = {}\n")

    def publish(self, content: str) -> str:
        """A new commit of the nodes; its id."""
        (self.repository / "__init__.py").write_text(content)
        self._git("add", ".")
        self._git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "nodes")
        return self._git("rev-parse", "HEAD").strip()

    def offer(self, name: str, content: bytes, url: str, *, size: int | None = None, sha256: str = "") -> Path:
        """Add a file to the table, truthfully unless told otherwise; where it will be."""
        proof = sha256 or hashlib.sha256(content).hexdigest()
        with self.table.open("a") as table:
            table.write(f"{name} {len(content) if size is None else size} {proof} {url}/{name}\n")
        return self.models / name

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "COMFYUI_HOME": str(self.home),
            "COMFYUI_VENV_PIP": str(self.pip),
            "STORYDIFFUSION_REPO": str(self.repository),
            "STORYDIFFUSION_COMMIT": self.commit,
            "STORYDIFFUSION_NEEDS": str(self.needs),
            "MODELS": str(self.table),
            "PAUSE_S": "0",
            "TRIES": "3",
        }
        plain = {"PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_CONFIG_GLOBAL": "/dev/null"}
        command = [str(FOLDER / "provisioning.sh"), *arguments]
        environ = {**plain, **settings, **environ}
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)

    def fails(self, *arguments: str, **environ: str) -> str:
        """The reason that a run gives, which must fail. git and curl may say more around it."""
        done = self.run(*arguments, **environ)
        assert done.returncode == 1, done.stdout
        reasons = [line for line in done.stderr.splitlines() if line.startswith("provisioning: ")]
        assert len(reasons) == 1, done.stderr
        return reasons[0].removeprefix("provisioning: ")

    def succeeds(self, *arguments: str, **environ: str) -> str:
        done = self.run(*arguments, **environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def asked_of_pip(self) -> list[str]:
        log = self.pip.with_name("pip.log")
        return log.read_text().splitlines() if log.exists() else []

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def provisioning(tmp_path: Path) -> Provisioning:
    return Provisioning(tmp_path)
