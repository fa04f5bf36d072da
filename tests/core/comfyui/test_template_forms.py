import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui.forms import form_of, template_of
from comfyui.library import BUILT_IN, Complaint, load_templates
from comfyui.lines import line_of, line_of_second_key
from comfyui.template import Template, TemplateError
from comfyui.workflow import of
from tests.core.comfyui.graphs import graph
from tests.core.comfyui.strategies import json_values

TEMPLATES, _ = load_templates(BUILT_IN)
NODES = graph(
    a=("LoadImage", {"image": "a.png"}),
    b=("Save", {"images": ["a", 0], "name": "x", "level": 1.5, "switch": ["c", 0]}),
    c=("Apply", {"infer_mode": "story"}),
)
FORM: dict[str, Any] = {
    "title": "T",
    "description": "",
    "result": "b",
    "fields": [
        {"key": "picture", "label": "Picture", "type": "image", "sets": [{"node": "a", "input": "image"}]},
        {"key": "name", "label": "Name", "type": "text", "default": "x", "sets": [{"node": "b", "input": "name"}]},
    ],
}
ROLES: dict[str, Any] = {"key": "r", "label": "R", "type": "roles", "sets": [{"node": "b", "input": "name"}]}
PANELS: dict[str, Any] = {
    "key": "p", "label": "P", "type": "panels", "sets": [{"node": "b", "input": "name", "part": "scenes"}],
}  # fmt: skip


def made(form: object, name: str = "one") -> Template:
    return template_of(name, of(NODES), form)


def changed(**values: object) -> dict[str, Any]:
    return {**FORM, "fields": [{**FORM["fields"][1], **values}]}


def with_fields(*fields: object) -> dict[str, Any]:
    return {**FORM, "fields": list(fields)}


@pytest.mark.parametrize(
    ("form", "path", "reason"),
    [
        ([], "", "not an object"),
        ({**FORM, "titel": 1}, "titel", "unknown titel"),
        ({"title": "T"}, "", "lacks description, fields, result"),
        ({**FORM, "title": 7}, "title", "title has a value of the wrong type"),
        ({**FORM, "title": "x" * 101}, "title", "more than 100 characters"),
        ({**FORM, "result": "9"}, "result", "result node '9'"),
        ({**FORM, "fields": {}}, "fields", "not a list"),
        ({**FORM, "fields": [7] * 101}, "fields", "not a list of at most 100"),
        ({**FORM, "fields": [7]}, "fields.0", "not an object"),
        ({**FORM, "fields": [{"key": "a"}]}, "fields.0", "lacks label, sets, type"),
        ({**FORM, "fields": FORM["fields"] * 2}, "fields.2.key", "two fields have the key 'picture'"),
        (changed(key='a"]'), "fields.0.key", "is not a small letter"),
        (changed(type="colour"), "fields.0.type", "no type 'colour'"),
        (changed(sets=[]), "fields.0.sets", "not a list of inputs"),
        (changed(sets=[{"node": "b", "input": "nmae"}]), "fields.0.sets.0", "node b has no input 'nmae'"),
        (changed(sets=[{"node": "b", "input": "images"}]), "fields.0.sets.0", "is a link to another node"),
        (changed(sets=[{"node": "b", "input": "name", "axis": "width"}]), "fields.0.sets.0", "axis"),
        (changed(sets=[{"node": "b", "input": "name", "part": "scenes"}]), "fields.0.sets.0", "a part, scenes"),
        (changed(sets=[{"node": "b", "input": "name", "x": 1}]), "fields.0.sets.0.x", "unknown x"),
        (changed(sets=[{"node": 2, "input": "name"}]), "fields.0.sets.0.node", "node has a value of the wrong type"),
        (changed(type="size"), "fields.0.sets.0", "axis"),
        (changed(default=7), "fields.0.default", "must be text"),
        (changed(default="../x", type="image", sets=FORM["fields"][0]["sets"]), "fields.0.default", 'holds ".."'),
        (changed(min="1"), "fields.0.min", "min has a value of the wrong type"),
        (changed(max=True), "fields.0.max", "max has a value of the wrong type"),
        (changed(min=3, max=2), "fields.0.min", "min is above max"),
        (changed(step=0), "fields.0.step", "step is not a whole number above 0"),
        (changed(type="integer", default=1, step=0.5), "fields.0.step", "step is not a whole number above 0"),
        (changed(type="seed", default=None, max=-1), "fields.0.max", "max is not from 0"),
        (changed(type="choice", choices=["a", 1]), "fields.0.choices.1", "a choice: 1 has a value"),
        (changed(type="choice", choices=["a"]), "fields.0.default", "must be one of a"),
        (changed(type="choice"), "fields.0.choices", "has 0 choices"),
        (changed(help="\0"), "fields.0.help", "NUL"),
        (with_fields({**ROLES, "max": 3}), "fields.0.max", "above 2"),
        (with_fields(PANELS), "fields.0", "and one of roles"),
        (with_fields(ROLES, PANELS, {**PANELS, "key": "q"}), "fields.1", "one field of them"),
        (with_fields(ROLES, {**PANELS, "default": []}), "fields.1", "have defaults together"),
        (
            with_fields(ROLES, {**PANELS, "sets": [{"node": "b", "input": "images", "part": "pictures"}]}),
            "fields.1",
            "no node whose switch leads to an infer_mode",
        ),
        (
            with_fields(ROLES, {**PANELS, "sets": [{"node": "b", "input": "name", "part": "pictures"}]}),
            "fields.1.sets.0",
            "input 'name' of node b is no link",
        ),
    ],
)
def test_a_bad_form_says_where_and_why(form: object, path: str, reason: str) -> None:
    with pytest.raises(TemplateError) as caught:
        made(form)
    assert ".".join(map(str, caught.value.path)) == path
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["", "Big", "a b", "../x", "x" * 65, "ä"])
def test_a_name_can_stand_in_an_address(name: str) -> None:
    with pytest.raises(TemplateError, match="the name"):
        made(FORM, name)


def test_panels_find_the_mode_of_their_encoder() -> None:
    assert [field.type for field in made(with_fields(ROLES, PANELS)).fields] == ["roles", "panels"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_form_can_be_written_again(name: str) -> None:
    form = json.loads(json.dumps(form_of(TEMPLATES[name])))
    assert template_of(name, TEMPLATES[name].workflow, form) == TEMPLATES[name]


@given(json_values | st.builds(changed, default=json_values, min=json_values, choices=json_values, sets=json_values))
def test_any_form_is_a_template_or_one_error(form: object) -> None:
    try:
        template = made(form)
    except TemplateError:
        return
    assert template.result == "b"


# ---- files


def saved(folder: Path, form: object = FORM, nodes: object = NODES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("workflow.json", nodes), ("form.json", form)):
        raw = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
        (folder / name).write_bytes(raw)
    return folder


def complaint(folder: Path) -> Complaint:
    _, [only] = load_templates(folder)
    return only


def line_with(file: Path, text: str) -> int:
    [number] = [number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line]
    return number


def test_a_broken_template_is_told_of_and_the_others_are_there(tmp_path: Path) -> None:
    saved(tmp_path / "good")
    broken = saved(tmp_path / "broken", changed(type="colour")) / "form.json"
    templates, [only] = load_templates(BUILT_IN, tmp_path)
    assert [name for name in templates if name not in TEMPLATES] == ["good"]
    assert (only.name, only.file, only.line) == ("broken", broken, line_with(broken, "colour"))
    assert str(only) == f"{broken}, line {only.line}: {only.reason}"
    assert "no type 'colour'" in only.reason


def test_a_later_folder_has_its_way_unless_it_is_broken(tmp_path: Path) -> None:
    saved(tmp_path / "one" / "x", {**FORM, "title": "first"})
    saved(tmp_path / "two" / "x", {**FORM, "title": "second"})
    saved(tmp_path / "three" / "x", {**FORM, "title": 3})
    templates, complaints = load_templates(*(tmp_path / name for name in ("one", "two", "three")))
    assert (templates["x"].title, [one.name for one in complaints]) == ("second", ["x"])


@pytest.mark.parametrize(
    ("form", "line", "reason"),
    [
        (b'{\n"title": "T",\n"fields" []\n}', 3, "Expecting ':' delimiter"),
        (b'{\n"title": "T",\n"title": "U"\n}', 3, "stands twice"),
        (b'{\n"title": NaN}', None, "NaN is not a number"),
        (b"[" * 100_000, None, "nested too deeply"),
        (b"\xef\xbb\xbf]]", None, "byte order mark"),
        (b'{\n\n"title": "\xff"}', 3, "not UTF-8"),
        (b"7", 1, "not an object"),
        (b" " * (9 << 20), None, "the limit is"),
    ],
)
def test_a_form_that_is_no_form_names_its_line(tmp_path: Path, form: bytes, line: int | None, reason: str) -> None:
    file = saved(tmp_path / "x", form) / "form.json"
    told = complaint(tmp_path)
    assert (told.file, told.line) == (file, line)
    assert reason in told.reason


def test_a_bad_workflow_names_its_line(tmp_path: Path) -> None:
    nodes = {**NODES, **graph(d=("KSampler", {"steps": 1, "seed": -1}))}
    file = saved(tmp_path / "x", nodes=nodes) / "workflow.json"
    told = complaint(tmp_path)
    assert (told.file, told.line) == (file, line_with(file, "seed"))
    saved(tmp_path / "x", nodes={"nodes": [], "links": []})
    assert "API format" in complaint(tmp_path).reason
    saved(tmp_path / "x", nodes={**NODES, "d": {"inputs": {}}})
    assert complaint(tmp_path).line == line_with(file, '"d"')


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (saved(tmp_path / "x") / "form.json").unlink()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    told = complaint(tmp_path)
    assert told.file == tmp_path / "x" / "form.json" and "No such file" in told.reason
    told = complaint(tmp_path / "nowhere")
    assert told.file == tmp_path / "nowhere" and "cannot be read" in told.reason
    assert load_templates() == ({}, ())


@given(json_values | st.dictionaries(st.text(), json_values, max_size=4), st.data())
def test_every_value_is_found_on_its_line(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, indent=1, allow_nan=True)
    path: list[str | int] = []
    while isinstance(value, dict | list) and value:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        path.append(data.draw(st.sampled_from(keys)))
        value = dict(zip(keys, value.values() if isinstance(value, dict) else value, strict=True))[path[-1]]
    line = text.splitlines()[line_of(text, path) - 1] if "\n" in text else text
    assert not path or isinstance(path[-1], int) or line.strip().startswith(json.dumps(path[-1]))
    assert line_of_second_key(text) is None
    assert line_of(text, [*path, "nowhere"]) == line_of(text, path)


@given(st.text(st.sampled_from('[]{},:"\\ab \n'), max_size=30))
def test_text_that_is_no_json_has_lines_too(text: str) -> None:
    assert line_of(text, ["a", 0]) >= 1
    assert line_of_second_key(text) in (None, *range(1, text.count("\n") + 2))
