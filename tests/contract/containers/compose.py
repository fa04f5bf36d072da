"""The compose file as Compose would see it: merged, its variables filled in, and the services of some profiles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "comfyui"
FILE = FOLDER / "docker-compose.yml"
#: ${NAME}, ${NAME:-default}, ${NAME-default} and ${NAME:?why}: all the forms the file uses.
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<how>:-|-|:\?)(?P<rest>[^}]*))?\}")
CARDS = range(8)


def settings(path: Path) -> dict[str, str]:
    """NAME=value lines of an .env file; comments left out."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def example() -> dict[str, str]:
    """What .env.example sets."""
    return settings(FOLDER / ".env.example")


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """The whole file. Raises ValueError for a variable that must be set and is not."""
    filled = _fill(_written(), environ)
    assert isinstance(filled, dict)
    return filled


def services(environ: Mapping[str, str]) -> dict[str, Any]:
    """Those that COMPOSE_PROFILES starts."""
    profiles = set(environ["COMPOSE_PROFILES"].split(","))
    return {
        name: service
        for name, service in load(environ)["services"].items()
        if not service.get("profiles") or profiles & set(service["profiles"])
    }


@cache
def _written() -> Any:
    return YAML(typ="safe").load(FILE)


def _fill(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, environ) for item in value]
    return VARIABLE.sub(lambda found: _value(found, environ), value) if isinstance(value, str) else value


def _value(found: re.Match[str], environ: Mapping[str, str]) -> str:
    given, how, rest = environ.get(found["name"]), found["how"], found["rest"]
    if how == ":?" and not given:
        raise ValueError(f"{found['name']}: {rest}")
    if how == "-":
        return rest if given is None else given
    return given or rest or ""
