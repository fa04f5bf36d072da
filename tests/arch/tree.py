"""The project's own files and the import rules of setup.cfg, as the tests of this folder see them."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("broker", "worker", "web", "comfyui")
_NOT_OURS = {"data", "build", "keys", "node_modules"}


@cache
def committed() -> tuple[Path, ...]:
    """Files under version control, or to be; without git (an unpacked archive) all that are not hidden or built."""
    if shutil.which("git") is not None and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not _hidden_or_built(path.relative_to(ROOT))]
    return tuple(sorted(path for path in paths if path.is_file()))


def _hidden_or_built(path: Path) -> bool:
    return path.parts[0] in _NOT_OURS or any(
        (part.startswith(".") and part != ".ci") or part == "__pycache__" or part.endswith(".egg-info")
        for part in path.parts
    )


@cache
def python_files() -> tuple[Path, ...]:
    """Every Python file, scripts without extension included."""
    return tuple(path for path in committed() if path.suffix == ".py" or (not path.suffix and _is_script(path)))


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(100)
    return first.startswith(b"#!") and b"python" in first


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    """The dotted name of a file of one of the packages."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def contract(name: str, key: str) -> tuple[str, ...]:
    """The list `key` of [importlinter:contract:name]."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return tuple(parser[f"importlinter:contract:{name}"][key].split())


@cache
def pure_files() -> tuple[Path, ...]:
    """The files whose modules, or packages around them, the contract `pure` names."""
    pure = contract("pure", "source_modules")
    return tuple(
        path
        for path in python_files()
        if path.relative_to(ROOT).parts[0] in PACKAGES
        and any(f"{module_name(path)}.".startswith(f"{name}.") for name in pure)
    )


def imports(path: Path) -> set[str]:
    """Every module that the file imports, `from a import b` counted as a and as a.b; annotations-only ones left out."""
    found: set[str] = set()
    skipped = {id(node) for block in ast.walk(parsed(path)) if _type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(parsed(path)):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
