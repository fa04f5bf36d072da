"""Who may import whom: the contracts of setup.cfg hold, bite, and leave no module out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.tree import PACKAGES, ROOT, committed, contract, imports, module_name, pure_files, python_files

LINT = Path(sys.executable).with_name("lint-imports")
#: Library -> the only files that import it: one place to look when it changes or must be hardened.
OWNERS: dict[str, str | tuple[str, ...]] = {
    "sqlite3": "broker/store/",
    "msgpack": "broker/protocol/codec.py",
    "geventwebsocket": "web/ws.py",
    "bottle": "web/",
    "gevent": "web/",
    "websocket": "comfyui/ws.py",
    "aiohttp": "comfyui/simulator/",
    "PIL": "comfyui/simulator/",
    "psutil": ("worker/gpu.py", "comfyui/simulator/"),
    "pynvml": "worker/gpu.py",
}
#: An import that breaks each contract of setup.cfg: file to append it to, line.
VIOLATIONS = {
    "pure": ("broker/core/model.py", "import zmq"),
    "decisions": ("broker/core/model.py", "import broker.store.api"),
    "foundations": ("broker/runtime/stop.py", "import broker.turn"),
    "contract": ("broker/protocol/ids.py", "import broker.runtime.clock"),
    "peers": ("worker/core/asks.py", "import broker.store.api"),
    "apart": ("web/hub.py", "import worker.core.asks"),
    "comfyui": ("comfyui/words.py", "import broker.protocol.ids"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--config", "setup.cfg", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_each_contract_bites(tmp_path: Path) -> None:
    for path in committed():
        name = path.relative_to(ROOT)
        if name.parts[0] in PACKAGES or name.name == "setup.cfg":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, tmp_path / name)
    for file, line in VIOLATIONS.values():
        with (tmp_path / file).open("a") as appended:
            appended.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert f"Contracts: 0 kept, {len(VIOLATIONS)} broken" in done.stdout


def test_no_module_of_the_broker_is_left_out() -> None:
    """A contract names what it forbids: a new module of the broker belongs into the lists."""
    inner = {
        f"broker.{path.relative_to(ROOT / 'broker').parts[0].removesuffix('.py')}"
        for path in python_files()
        if path.is_relative_to(ROOT / "broker")
    } - {"broker.__init__", "broker.__main__", "broker.protocol", "broker.runtime"}
    assert set(contract("peers", "forbidden_modules")) == inner
    assert set(contract("foundations", "forbidden_modules")) == inner
    assert set(contract("decisions", "forbidden_modules")) == inner - {"broker.core"} | {"broker.runtime"}


@pytest.mark.parametrize("package", ["worker", "web"])
def test_workers_and_web_see_the_contract_the_runtime_and_comfyui(package: str) -> None:
    seen = {
        name
        for path in python_files()
        if path.is_relative_to(ROOT / package)
        for name in imports(path)
        if name.split(".")[0] in PACKAGES
    }
    allowed = ("broker.protocol", "broker.runtime", "comfyui", package)
    strangers = {name for name in seen if not any(f"{name}.".startswith(f"{ok}.") for ok in allowed)}
    assert strangers == set()


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_its_place(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.relative_to(ROOT).parts[0] in PACKAGES and any(name.split(".")[0] == library for name in imports(path))
    }
    assert [user for user in users if not user.startswith(OWNERS[library])] == []


def test_the_pure_modules_are_there() -> None:
    found = {module_name(path) for path in pure_files()}
    assert set(contract("pure", "source_modules")) <= found


@pytest.mark.parametrize("package", ["broker.protocol", "broker.core", "worker.core", "comfyui.workflow", "web.hub"])
def test_pure_code_loads_no_io_library(package: str) -> None:
    program = f"""
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
for found in pkgutil.iter_modules(getattr(package, "__path__", []), {package!r} + "."):
    importlib.import_module(found.name)
print(*sorted({{"zmq", "gevent", "sqlite3", "bottle", "aiohttp"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
