"""Templates out of workflows: what is offered, what is saved and read again, and what is refused where."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from comfyui.library import BUILT_IN, load_templates
from comfyui.offering import candidates, template_from_workflow
from comfyui.workflow import of
from tests.web.stage import OBJECT_INFO, Stage, staged
from web.library import Library

WORKFLOW: Any = json.loads((BUILT_IN / "text-to-image" / "workflow.json").read_text())


def offered(stage: Stage, workflow: Any = WORKFLOW) -> dict[str, Any]:
    answer = stage.post("/api/v1/templates/draft", {"workflow": workflow})
    assert answer.status == 200, answer.body
    return {field["key"]: field for field in answer.json["fields"]}


def new(**changes: Any) -> dict[str, Any]:
    fields = [{"key": "seed"}, {"key": "steps", "label": "Effort", "group": "Advanced", "help": "More is slower."}]
    return {"name": "poster", "title": "Poster", "workflow": WORKFLOW, "fields": fields, **changes}


def test_every_input_is_offered_with_its_place_its_bounds_and_its_value(ready_stage: Stage) -> None:
    steps = offered(ready_stage)["steps"]
    assert (steps["type"], steps["min"], steps["max"], steps["value"]) == ("integer", 1, 10_000, 20)
    node = next(node_id for node_id, node in WORKFLOW.items() if node["class_type"] == "KSampler")
    assert (steps["node"], steps["class_type"], steps["input"]) == (node, "KSampler", "steps")
    assert offered(ready_stage)["ckpt_name"]["choices"] == ["juggernautXL_v8Rundiffusion.safetensors"]


def test_without_a_worker_the_values_say_what_could_be_entered(stage: Stage) -> None:
    fields = offered(stage)
    assert (fields["steps"]["type"], fields["steps"]["max"]) == ("integer", None)
    assert stage.post("/api/v1/templates/draft", {"workflow": WORKFLOW}).json["why_not"] == ""


def test_nodes_that_no_worker_has_are_named(ready_stage: Stage) -> None:
    workflow = copy.deepcopy(WORKFLOW)
    next(node for node in workflow.values() if node["class_type"] == "KSampler")["class_type"] = "KSamplerOfMine"
    answer = ready_stage.post("/api/v1/templates/draft", {"workflow": workflow})
    assert answer.json["why_not"] == "no worker has KSamplerOfMine among its nodes"


def test_the_result_is_offered_by_what_its_node_is_called(ready_stage: Stage) -> None:
    results = ready_stage.post("/api/v1/templates/draft", {"workflow": WORKFLOW}).json["results"]
    assert [one["class_type"] for one in results] == ["SaveImage"]


def test_a_saved_template_is_there_at_once_and_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    with staged(templates=folder) as stage:
        stage.with_worker()
        saved = stage.post("/api/v1/templates", new(description="One line.")).json
        assert [field["label"] for field in saved["fields"]] == ["Seed", "Effort"]
        assert (saved["fields"][1]["group"], saved["own"], saved["runnable"]) == ("Advanced", True, True)
        assert stage.get("/api/v1/templates/poster").json == saved
        job = {"template": "poster", "params": {"steps": 7}}
        assert stage.post("/api/v1/jobs", job).status == 202
    assert [path.name for path in folder.iterdir()] == ["poster"]
    with staged(templates=folder) as again:
        again.with_worker()
        assert again.get("/api/v1/templates/poster").json == saved
        assert again.delete("/api/v1/templates/poster").status == 200
        assert again.get("/api/v1/templates/poster").code == "not_found"
    assert list(folder.iterdir()) == []


def test_why_a_template_cannot_run_is_said_in_the_asker_s_language_and_as_a_code(ready_stage: Stage) -> None:
    english = ready_stage.get("/api/v1/templates/story").json
    chinese = ready_stage.get("/api/v1/templates/story", **{"Accept-Language": "zh"}).json
    assert english["why_not_code"] == chinese["why_not_code"] == "no_node"
    assert english["why_not"].endswith(" among its nodes") and "StoryDiffusion_Apply" in english["why_not"]
    assert chinese["why_not"].startswith("没有机器装有节点 ") and "StoryDiffusion_Apply" in chinese["why_not"]


def test_fields_may_be_picked_by_their_keys_alone(ready_stage: Stage) -> None:
    saved = ready_stage.post("/api/v1/templates", new(fields=["steps", "seed"])).json
    assert [field["key"] for field in saved["fields"]] == ["steps", "seed"]


def test_built_in_templates_stay_and_their_names_are_taken(ready_stage: Stage) -> None:
    assert ready_stage.delete("/api/v1/templates/text-to-image").code == "built_in"
    assert ready_stage.post("/api/v1/templates", new(name="text-to-image")).code == "taken"
    assert ready_stage.post("/api/v1/templates", new()).status == 201
    assert ready_stage.post("/api/v1/templates", new()).code == "taken"
    assert ready_stage.delete("/api/v1/templates/nobody-s").code == "not_found"
    own = {one["name"]: one["own"] for one in ready_stage.get("/api/v1/templates").json["templates"]}
    assert own == {**dict.fromkeys(load_templates(BUILT_IN)[0], False), "poster": True}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"name": "../up"}, "bad_template", "the name"),
        ({"name": 7}, "bad_type", "name is text"),
        ({"title": "x" * 101}, "bad_template", "title"),
        ({"title": " "}, "bad_template", "not blank"),
        ({"title": "Poster\u202egnp"}, "bad_template", "can be printed"),
        ({"result": "404"}, "bad_template", "the result node"),
        ({"fields": "seed"}, "bad_type", "fields is a list"),
        ({"fields": []}, "bad_template", "pick at least one"),
        ({"fields": ["flavour"]}, "unknown_field", "'flavour'"),
        ({"fields": [{"key": "seed", "type": "text"}]}, "bad_field", "label, help, group"),
        ({"fields": [{"key": "seed", "label": 7}]}, "bad_field", "all of them texts"),
        ({"fields": ["seed", "seed"]}, "bad_template", "two fields"),
        ({"workflow": {"nodes": [], "links": []}}, "ui_format", "Export (API)"),
        ({"workflow": 7}, "not_a_workflow", "one entry for each node"),
        ({"flavour": 1}, "unknown_key", "'flavour'"),
    ],
)
def test_what_cannot_be_saved_is_named(ready_stage: Stage, changes: dict[str, Any], code: str, words: str) -> None:
    answer = ready_stage.post("/api/v1/templates", new(**changes))
    assert (answer.code, answer.status) == (code, 400 if code == "not_a_workflow" else 422)
    assert words in answer.json["error"]["message"]
    assert "poster" not in [one["name"] for one in ready_stage.get("/api/v1/templates").json["templates"]]


def test_one_whose_folder_is_gone_can_be_taken_away(tmp_path: Path) -> None:
    own = tmp_path / "templates"
    library = Library(own)
    workflow = of(WORKFLOW)
    library.add(template_from_workflow("poster", "Poster", workflow, [candidates(workflow, {})[0].field]))
    shutil.rmtree(own / "poster")
    library.remove("poster")
    assert "poster" not in library


def test_what_is_missing_is_named(ready_stage: Stage) -> None:
    body = new()
    del body["title"]
    assert ready_stage.post("/api/v1/templates", body).json["error"]["message"] == "title is missing"
    assert ready_stage.post("/api/v1/templates/draft", {}).code == "missing_key"


def test_what_a_template_needs_is_told_where_a_worker_can_tell(stage: Stage) -> None:
    assert stage.get("/api/v1/templates").json["templates"][0]["needs"] == {"nodes": [], "models": []}
    stage.with_worker(OBJECT_INFO)
    needs = stage.get("/api/v1/templates/story").json["needs"]
    assert "StoryDiffusion_Apply" in needs["nodes"] and needs["models"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    folder.write_text("a file where the folder should be")
    with staged(templates=folder) as stage:
        stage.with_worker()
        answer = stage.post("/api/v1/templates", new())
        assert (answer.status, answer.json["error"]["code"]) == (507, "folder_unwritable")
        assert "[web] templates" in answer.json["error"]["message"]
        assert "poster" not in [one["name"] for one in stage.get("/api/v1/templates").json["templates"]]
