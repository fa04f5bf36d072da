"""What the templates that come with the program make of parameters, byte for byte as it is stored and sent.

`python -m tests.core.comfyui.test_template_goldens` writes the workflows anew; what changed is then to be read.
"""

import json
from pathlib import Path

import pytest

from comfyui import workflow
from comfyui.library import BUILT_IN, load_templates

GOLDENS = Path(__file__).with_name("goldens")
CASES = sorted(path.name for path in GOLDENS.iterdir())


def made(case: str) -> bytes:
    """The workflow of goldens/CASE/params.json; a case has the name of its template, and may go on behind a dot."""
    params = json.loads((GOLDENS / case / "params.json").read_bytes())
    templates, _ = load_templates(BUILT_IN)
    return workflow.dump(templates[case.partition(".")[0]].fill(params, seed=2**53 - 1))


@pytest.mark.parametrize("case", CASES)
def test_the_same_parameters_give_the_same_bytes(case: str) -> None:
    assert made(case) == (GOLDENS / case / "workflow.json").read_bytes()


def test_every_template_has_one() -> None:
    templates, _ = load_templates(BUILT_IN)
    assert {case.partition(".")[0] for case in CASES} == set(templates)


if __name__ == "__main__":
    for case in CASES:
        (GOLDENS / case / "workflow.json").write_bytes(made(case))
