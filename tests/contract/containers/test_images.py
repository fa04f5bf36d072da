"""The images: what they are made from is fixed, what goes into them is there and theirs, and the scripts are sound."""

from __future__ import annotations

import configparser
import fnmatch
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.contract.containers.compose import FOLDER, ROOT

CONTAINERS = FOLDER / "containers"
DOCKERFILES = sorted(CONTAINERS.glob("*.Dockerfile"))
SCRIPTS = [FOLDER / "provisioning.sh", *(CONTAINERS / name for name in ("make-keys", "new-token", "start-comfyui"))]
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(FROM, …), (RUN, …), … with continued lines joined."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found = [PIN.fullmatch(line) for line in lines]
    assert None not in found, f"{path}: a line without an exact version"
    return {canonicalize_name(pin["name"]): pin["version"] for pin in found if pin is not None}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    done = tool("hadolint", "--no-color", dockerfile)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = tool("shellcheck", script)
    assert done.returncode == 0, done.stdout
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in script.read_text()
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_every_base_is_one_exact_image(dockerfile: Path) -> None:
    stages = {rest.split(" AS ")[1] for word, rest in instructions(dockerfile) if word == "FROM" and " AS " in rest}
    bases = {rest.split()[0] for word, rest in instructions(dockerfile) if word == "FROM"} - stages
    assert len(bases) == 1
    assert re.fullmatch(r"[\w./-]+:\w*\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", bases.pop())


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_nothing_runs_as_root(dockerfile: Path) -> None:
    last = [rest for word, rest in instructions(dockerfile) if word == "USER"][-1]
    assert re.fullmatch(r"1000\d:1000\d", last)


def test_what_comfyui_is_given_is_there() -> None:
    copied = [rest.split()[:-1] for word, rest in instructions(CONTAINERS / "comfyui.Dockerfile") if word == "COPY"]
    assert [name for names in copied for name in names if not (FOLDER / name).is_file()] == []


def test_the_fleet_is_given_what_it_runs_and_no_secret() -> None:
    lines = (CONTAINERS / "fleet.Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    def goes_in(path: str) -> bool:
        taken = True
        for rule in rules:
            pattern = rule.removeprefix("!").replace("**/", "*")
            parents = [path, *(str(parent) for parent in Path(path).parents)]
            if any(fnmatch.fnmatchcase(name, pattern) for name in parents):
                taken = rule.startswith("!")
        return taken

    needed = ["config.ini", "scripts/keys", "web/__main__.py", "comfyui/containers/health.py", "pyproject.toml"]
    assert all((ROOT / path).is_file() and goes_in(path) for path in needed)
    outside = ["comfyui/.env", "keys/broker.ini", "data/fleet.sqlite3", ".git/config", ".venv/pyvenv.cfg", "tests/x.py"]
    assert not [path for path in outside if goes_in(path)]


def test_every_package_of_the_fleet_has_one_version() -> None:
    fixed = pins(CONTAINERS / "constraints.txt")
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"] + config["options.extras_require"]["gpu"]
    asked = [Requirement(line) for line in wanted.splitlines() if line]
    for requirement in asked:
        assert requirement.specifier.contains(fixed[canonicalize_name(requirement.name)]), requirement
    seen: set[str] = set()
    while asked:
        name = canonicalize_name(asked.pop().name)
        if name not in seen:
            seen.add(name)
            further = [Requirement(line) for line in importlib.metadata.requires(name) or []]
            asked += [need for need in further if need.marker is None or need.marker.evaluate({"extra": ""})]
    assert seen <= fixed.keys()


def test_the_nodes_packages_have_one_version() -> None:
    assert all(Version(version) for version in pins(CONTAINERS / "storydiffusion.txt").values())


def test_the_warm_up_needs_only_the_model_that_is_provisioned() -> None:
    prompt = json.loads((FOLDER / "warmup.json").read_text())
    (loader,) = [node["inputs"] for node in prompt.values() if "ckpt_name" in node["inputs"]]
    assert f"\ncheckpoints/{loader['ckpt_name']} " in (CONTAINERS / "models.txt").read_text()
    assert {node["class_type"] for node in prompt.values()} == {
        "CheckpointLoaderSimple", "EmptyLatentImage", "CLIPTextEncode", "KSampler", "VAEDecode", "PreviewImage",
    }  # fmt: skip


def test_every_model_of_the_templates_is_provisioned() -> None:
    table = (CONTAINERS / "models.txt").read_text()
    for workflow in sorted((FOLDER / "templates").glob("*/workflow.json")):
        for node in json.loads(workflow.read_text()).values():
            for value in node["inputs"].values():
                if isinstance(value, str) and value.endswith((".safetensors", ".pth", ".bin")):
                    assert f"/{value} " in table, f"{workflow}: {value}"
