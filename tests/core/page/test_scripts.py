"""The page's own modules, tested where they run: by node, and not at all where there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from web.assets import STATIC, asset, bare

SUITES = sorted((Path(__file__).parent / "scripts").glob("*.test.mjs"))
#: All scripts together, each as a browser gets it, are to stay below this.
MAX_GZIPPED_BYTES = 60 << 10


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_the_browser_s_modules(suite: Path) -> None:
    run = subprocess.run(["node", "--test", suite], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_scripts_stay_small() -> None:
    found = [asset(path.name) for path in sorted(STATIC.glob("*.js"))]
    assert sum(len(one.packed) for one in found if one is not None) < MAX_GZIPPED_BYTES


def test_browsers_get_scripts_without_comments_and_indents_but_with_every_line_where_it_was() -> None:
    script = (
        '// Says.\n/**\n * What * it does.\n */\nconst a = "// kept"; // kept too\n  // gone\n  b = 4 /* kept */ / 2;\n'
    )
    assert bare(script) == '\n\n\n\nconst a = "// kept"; // kept too\n\nb = 4 /* kept */ / 2;\n'


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.stem)
def test_no_text_of_a_script_goes_over_the_end_of_a_line(path: Path) -> None:
    assert [line for line in bare(path.read_text("utf-8")).splitlines() if line.count("`") % 2] == []


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.stem)
def test_what_browsers_get_is_whole(path: Path) -> None:
    found = asset(path.name)
    assert found is not None
    check = ["node", "--check", "--input-type=module"]
    run = subprocess.run(check, input=found.data, capture_output=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
