import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import story, workflow
from comfyui.fields import Refused
from comfyui.library import BUILT_IN, load_templates
from comfyui.story import Panel, Role
from comfyui.workflow import WorkflowError
from tests.core.comfyui.graphs import graph

TEMPLATES, _ = load_templates(BUILT_IN)
STORY, COMIC = TEMPLATES["story"], TEMPLATES["comic"]
ANN = {"name": "Ann", "description": "a woman with short red hair"}
BEN = {"name": "Ben", "description": "an old man, grey beard"}


def panel(text: str, *roles: str, caption: str = "") -> dict[str, object]:
    return {"roles": list(roles), "text": text, "caption": caption}


def filled(characters: object, panels: object, template: Any = STORY) -> Any:
    return template.fill({"characters": characters, "panels": panels}, seed=7)


def refused(characters: object, panels: object) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        filled(characters, panels)
    return caught.value


def test_rows_become_the_lines_that_the_nodes_read() -> None:
    encoder = filled([ANN], [panel("wakes up", "Ann"), panel("a panda  walks\n by", caption="Hm")]).nodes["3"].inputs
    assert encoder["role_text"] == "[Ann] a woman with short red hair"
    assert encoder["scene_text"] == "[Ann] wakes up\n[NC] a panda walks by"


def test_a_story_in_order_is_the_plain_graph() -> None:
    nodes = filled([ANN, BEN], [panel("a", "Ann"), panel("b", "Ann"), panel("c", "Ben"), panel("d")]).nodes
    assert nodes.keys() == STORY.workflow.nodes.keys()
    assert nodes["7"].inputs["images"] == ["6", 0]


def test_rows_are_sent_character_by_character_and_their_pictures_put_back() -> None:
    panels = [panel("a sea"), panel("1", "Ben"), panel("2", "Ann"), panel("3", "Ben")]
    result = filled([ANN, BEN], panels)
    assert result.nodes["3"].inputs["scene_text"].splitlines() == ["[Ann] 2", "[Ben] 1", "[Ben] 3", "[NC] a sea"]
    assert pictures(result, "7", "images", ["2", "1", "3", "a sea"]) == ["a sea", "1", "2", "3"]


def test_a_comic_has_its_captions_in_the_order_of_its_panels() -> None:
    panels = [panel("1", "Ben", caption="one"), panel("2", "Ann"), panel("3", "Ben", caption=" three\n(!) ")]
    result = filled([ANN, BEN], panels, COMIC)
    assert result.nodes["7"].inputs["scene_prompts"] == "one\n\nthree (!)"
    assert pictures(result, "7", "image", ["2", "1", "3"]) == ["1", "2", "3"]


def pictures(result: Any, node: str, name: str, drawn: list[str]) -> list[str]:
    """What reaches an input when the decoder gives `drawn`, run as ComfyUI's own nodes would."""

    def run(link: list[Any]) -> list[str]:
        found = result.nodes[link[0]]
        if found.class_type == "ImageFromBatch":
            start = found.inputs["batch_index"]
            return run(found.inputs["image"])[start : start + found.inputs["length"]]
        if found.class_type == "ImageBatch":
            return run(found.inputs["image1"]) + run(found.inputs["image2"])
        assert found.class_type == "VAEDecode"
        return drawn

    return run(result.nodes[node].inputs[name])


def test_a_story_may_be_given_as_lines() -> None:
    lines = filled(
        "[Ann] a woman with short red hair\n\n [Ben]  an old man, grey beard\n",
        "[Ann] wakes up # Morning\r\n[NC] a panda\n\nlater [Ben] sleeps",
    )
    rows = [panel("wakes up", "Ann", caption="Morning"), panel("a panda"), panel("later [Ben] sleeps")]
    assert lines == filled([ANN, BEN], rows)


@pytest.mark.parametrize(
    ("characters", "panels", "row", "reason"),
    [
        ([], [panel("a", "Ann")], 0, "at least 1 characters; there are 0"),
        ("", "[Ann] a", 0, "at least 1 characters"),
        ([ANN, BEN, {**ANN, "name": "Cleo"}], [], 0, "has 3 characters; the most is 2"),
        ([ANN, {**BEN, "name": "Ann"}], [], 2, "taken by another"),
        ([{**ANN, "name": " nc "}], [], 1, "marks a panel without"),
        ([{**ANN, "name": "A[n]n"}], [], 1, "the name holds '['"),
        ([{**ANN, "name": ""}], [], 1, "the name is empty"),
        ([{"name": "Ann"}], [], 1, "the description must be text"),
        ([{**ANN, "description": "red # hair"}], [], 1, "the description holds '#'"),
        ([ANN, {**ANN, "age": 7}], [], 2, "name, description and nothing else"),
        ([ANN, None], [], 2, "nothing else"),
        ([{**ANN, "name": "x" * 41}], [], 1, "41 characters; the limit is 40"),
        ([{**ANN, "description": "a\0"}], [], 1, "the description holds a NUL"),
        ("Ann is a woman", [], 1, "does not begin with a name in brackets"),
        (7, [], 0, "must be a list, or text with one on each line"),
        ("[A] x\n" * 20_000, [], 0, "the limit is 50000"),
    ],
)  # fmt: skip
def test_a_bad_character_names_its_row(characters: object, panels: object, row: int, reason: str) -> None:
    error = refused(characters, panels)
    assert (error.details["field"], error.details.get("row", 0)) == ("characters", row)
    assert f"field characters (Characters){f', row {row}' if row else ''}: " in str(error) and reason in str(error)


@pytest.mark.parametrize(
    ("characters", "panels", "row", "reason"),
    [
        ([ANN], [], 0, "at least 1 panels; there are 0"),
        ([ANN], [panel("a", "Ann")] * 17, 0, "has 17 panels; the most is 16"),
        ([ANN], [panel("a", "Ann"), panel("b", "Bob")], 2, "names 'Bob', who is not among the characters: Ann"),
        ([ANN], [panel("a", "Ann"), panel("meets [Bob]", "Ann")], 2, "names 'Bob'"),
        ([ANN], [panel("[NC] a", "Ann")], 1, "names 'NC'"),
        ([ANN], [panel("[Ann sleeps", "Ann")], 1, "a bracket without its partner"),
        ([ANN], [panel("sleeps]", "Ann")], 1, "a bracket without its partner"),
        ([ANN], [panel("[[Ann]] sleeps")], 1, "a bracket without its partner"),
        ([ANN], [panel("a [] b", "Ann")], 1, "names ''"),
        ([ANN], [panel("", "Ann")], 1, "the text is empty"),
        ([ANN], [panel("[Ann] ")], 1, "says nothing"),
        ([ANN], [panel("a # b", "Ann")], 1, "the text holds '#'"),
        ([ANN], [panel("a", "Ann", caption="[x]")], 1, "the caption holds '['"),
        ([ANN], [panel("a", "Ann", caption="x" * 201)], 1, "the caption has 201"),
        ([ANN], [{"text": "a", "caption": 7}], 1, "the caption must be text"),
        ([ANN], [{"text": "a", "roles": "Ann"}], 1, "a list of names"),
        ([ANN], [{"text": "a", "who": "Ann"}], 1, "roles, text, caption and nothing else"),
        ([ANN], [panel("[Ann] sees [Ann]")], 1, "names Ann twice"),
        ([ANN, BEN], [panel("talk", "Ann", "Ben")], 1, "which only the modes msdiffusion and story_and_maker draw"),
        ([ANN], [panel("a", "Ann"), panel("b"), panel("c")], 3, "a second one without a character"),
        ([ANN], [panel("a")], 0, "no panel shows Ann alone"),
        ([ANN, BEN], [panel("a", "Ann")], 0, "no panel shows Ben alone"),
        ([ANN], "[Ann] a\nshe sleeps", 2, "names nobody: begin it with"),
        ([ANN], "[Ann] a\n[NC] with [Ann]", 2, "[NC], which says that nobody is there, and a character"),
    ],
)
def test_a_bad_panel_names_its_row(characters: object, panels: object, row: int, reason: str) -> None:
    error = refused(characters, panels)
    assert (error.details["field"], error.details.get("row", 0)) == ("panels", row)
    assert f"field panels (Panels){f', row {row}' if row else ''}: " in str(error) and reason in str(error)


@pytest.mark.parametrize("mode", sorted(story.TWO_ROLE_MODES))
def test_some_modes_draw_two_characters_in_one_panel(mode: str) -> None:
    roles = story.read_roles([ANN, BEN])
    panels = story.read_panels([panel("shake hands", "Ann", "Ben"), panel("gives [Ann] a map", "Ben"),
                                panel("a", "Ben"), panel("b"), panel("c", "Ann")])  # fmt: skip
    story.check(roles, panels, mode)
    assert story.scene_text(roles, panels).splitlines() == [
        "[Ann] c",
        "[Ben] a",
        "[NC] b",
        "[Ann] and [Ben] shake hands",
        "[Ben] gives [Ann] a map",
    ]
    assert story.places(roles, panels) == (3, 4, 1, 2, 0)
    with pytest.raises(Refused, match="alone"):
        story.check(roles, panels[:4], mode)


def test_the_mode_may_be_a_field_of_the_form() -> None:
    with_mode = workflow.set_inputs(STORY.workflow, {("2", "infer_mode"): "msdiffusion"})
    assert (story.mode_of(STORY.workflow, "3"), story.mode_of(with_mode, "3")) == ("story", "msdiffusion")
    assert story.mode_of(STORY.workflow, "5") is None


def test_new_nodes_take_no_id_that_is_there() -> None:
    nodes = graph(a=("VAEDecode", {}), b=("Save", {"x": ["a", 0]}), **{"a-panel-1": ("Note", {})})
    arranged = story.rearranged(workflow.of(nodes), [("b", "x")], [1, 0])
    assert arranged.nodes["a-panel-1"].class_type == "Note"
    assert pictures(arranged, "b", "x", ["first", "second"]) == ["second", "first"]


def test_inputs_that_take_the_same_pictures_share_the_new_nodes() -> None:
    nodes = graph(a=("VAEDecode", {}), b=("Save", {"x": ["a", 0], "y": ["a", 0]}))
    arranged = story.rearranged(workflow.of(nodes), [("b", "x"), ("b", "y")], [1, 0])
    assert arranged.nodes["b"].inputs["x"] == arranged.nodes["b"].inputs["y"]
    assert len(arranged.nodes) == 5


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="[]#\0"), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip())
)


@st.composite
def stories(draw: st.DrawFn) -> tuple[tuple[Role, ...], tuple[Panel, ...]]:
    """Whatever a person could have entered for two characters at most, in any order."""
    names = draw(st.lists(words.filter(lambda name: name.strip().upper() != "NC"), min_size=1, max_size=2,
                          unique_by=lambda name: " ".join(name.split())))  # fmt: skip
    roles = story.read_roles([{"name": name, "description": draw(words)} for name in names])
    rows = [panel(draw(words), *draw(st.sampled_from([[role.name] for role in roles])), caption=draw(words))
            for _ in range(draw(st.integers(0, 6)))]  # fmt: skip
    rows += [panel(draw(words), role.name) for role in roles]
    rows += [panel(draw(words))] * draw(st.integers(0, 1))
    return roles, story.read_panels(draw(st.permutations(rows)))


@given(stories())
def test_the_nodes_draw_every_panel_in_its_place(told: tuple[tuple[Role, ...], tuple[Panel, ...]]) -> None:
    roles, panels = told
    story.check(roles, panels, "story")
    drawn = as_the_nodes_draw(story.role_text(roles), story.scene_text(roles, panels))
    descriptions = {role.name: role.description for role in roles}
    wanted = [("".join(descriptions[name] for name in one.people), one.text) for one in panels]
    assert [drawn[place] for place in story.places(roles, panels)] == wanted
    assert len(story.caption_text(panels).split("\n")) == len(panels)


def as_the_nodes_draw(role_text: str, scene_text: str) -> list[tuple[str, str]]:
    """(description, text) of each picture in the order in which they come, by the rules of e4e0acd."""
    roles = {}
    for line in role_text.splitlines():
        if "[" in line and "]" in line:
            end = line.index("]") + 1
            roles[line[line.index("[") : end]] = line[end:].rpartition("#")[0] if "#" in line[end:] else line[end:]
    rows = [line.strip() for line in scene_text.splitlines() if "[" in line]
    rows = [row for row in rows if len(re.findall(r"\[(.*?)\]", row)) < 2]
    assert all("[NC]" not in row for row in rows[: len(roles)])
    pictures = []
    for name, description in roles.items():
        own = [row.replace(name, "").strip() for row in rows if name in row]
        assert own, "the sampler fails when a character has no row"
        pictures += [(description.strip(), text) for text in own]
    nobody = [(place, row.replace("[NC]", "").strip()) for place, row in enumerate(rows) if "[NC]" in row]
    for place, text in nobody[-1:]:
        pictures.insert(place, ("", text))
    return pictures
