"""The page's own modules, tested where they run: by node, and not at all where there is none."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

import web

STATIC = Path(web.__path__[0]) / "static"
SUITES = sorted((Path(__file__).parent / "scripts").glob("*.test.mjs"))
#: The whole page, with what it will grow into, is to stay below this.
MAX_GZIPPED_BYTES = 60 << 10


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_the_browser_s_modules(suite: Path) -> None:
    run = subprocess.run(["node", "--test", suite], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_scripts_stay_small() -> None:
    scripts = b"".join(path.read_bytes() for path in sorted(STATIC.glob("*.js")))
    assert len(gzip.compress(scripts)) < MAX_GZIPPED_BYTES
