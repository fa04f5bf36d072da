"""Names of input files, in the input folder and in the workflow."""

from __future__ import annotations

from broker.protocol.records import InputFile
from comfyui.workflow import of
from tests.core.worker.world import GRAPH
from worker.core.inputs import renamed, upload_name


def test_upload_names_are_made_of_content_and_keep_the_extension() -> None:
    def name(said: str) -> str:
        return upload_name(InputFile(name=said, sha256="ab" * 32, size_bytes=1))

    assert name("x/My Photo.PNG") == f"fleet_{'ab' * 32}.png"
    assert name("photo.jpeg [input]") == f"fleet_{'ab' * 32}.jpeg"
    assert name("no extension") == name("strange.ex t") == f"fleet_{'ab' * 32}"


def test_only_inputs_that_name_a_file_are_changed() -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png [input]", "other": "a.png!"}},
        "2": {"class_type": "X", "inputs": {"images": ["1", 0], "again": "a.png", "number": 3}},
    }
    changed = renamed(of(graph), {"a.png": "fleet_1.png"})
    assert changed.nodes["1"].inputs == {"image": "fleet_1.png", "other": "a.png!"}
    assert changed.nodes["2"].inputs == {"images": ["1", 0], "again": "fleet_1.png", "number": 3}
    same = of(GRAPH)
    assert renamed(same, {"a.png": "b.png"}) is same
