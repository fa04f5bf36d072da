import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import workflow
from comfyui.workflow import Limits, WorkflowError, dump, input_fault, of, parse, set_inputs
from tests.core.comfyui.graphs import SDXL, graph, sdxl
from tests.core.comfyui.strategies import any_text, json_values


def refused(value: object, limits: Limits = workflow.DEFAULT_LIMITS) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        parse(value if isinstance(value, bytes) else json.dumps(value).encode(), limits)
    str(caught.value).encode()
    json.dumps(dict(caught.value.details), allow_nan=False)
    return caught.value


def test_text_to_image_is_accepted_and_comes_back_whole() -> None:
    parsed = parse(json.dumps(SDXL).encode())
    assert parsed.graph() == SDXL
    assert parsed.nodes["3"].class_type == "KSampler"
    assert dict(parsed.nodes["8"].links()) == {"samples": workflow.Link("3", 0), "vae": workflow.Link("4", 2)}
    places = {node_id: place for place, node_id in enumerate(parsed.order)}
    assert places["4"] < places["6"] < places["3"] < places["8"] < places["9"]


def test_upstream_is_what_a_node_needs() -> None:
    assert sdxl().upstream(["6"]) == {"6", "4"}
    assert sdxl().upstream(["9"]) == set(SDXL)


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b'"x"', b"7", b"{}", b"{", b'{"a":NaN}', b'{"a":1,"a":2}'])
def test_what_is_no_workflow_at_all(raw: bytes) -> None:
    assert refused(raw).kind == "bad_request"


def test_the_editors_format_is_told_what_to_do() -> None:
    error = refused({"last_node_id": 9, "nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4})
    assert (error.code, error.kind) == ("ui_format", "unprocessable")
    assert "export in API format" in str(error)


@pytest.mark.parametrize(
    ("link", "code", "reason"),
    [
        (["77", 0], "missing_link", "'77', which does not exist"),
        (["b", 0], "cycle", "its own node"),
        (["a"], "bad_link", "must be"),
        (["a", 0, 0], "bad_link", "must be"),
        ([1, 0], "bad_link", "must be"),
        (["a", "0"], "bad_link", "must be"),
        (["a", -1], "bad_link", "must be"),
        (["a", True], "bad_link", "must be"),
        ([], "bad_link", "must be"),
        (["c", 0], "cycle", "b -> c -> b"),
    ],
)
def test_bad_links_name_their_node(link: list[Any], code: str, reason: str) -> None:
    nodes = graph(
        a=("EmptyImage", {"width": 64}), b=("ImageInvert", {"image": link}), c=("ImageInvert", {"image": ["b", 0]})
    )
    error = refused(nodes)
    assert (error.code, error.kind, error.details["node_id"]) == (code, "unprocessable", "b")
    assert reason in str(error) and "b" in str(error)


def test_a_wrapped_list_is_no_link() -> None:
    value = graph(a=("Foo", {"points": {"__value__": [1, 2, 3]}}))
    assert parse(json.dumps(value).encode()).graph() == value


@pytest.mark.parametrize(
    "node",
    [{"inputs": {}}, {"class_type": 7, "inputs": {}}, {"class_type": "", "inputs": {}}, {"class_type": "A"}, [], None],
)
def test_what_is_no_node(node: object) -> None:
    error = refused({"a": {"class_type": "B", "inputs": {}}, "7": node})
    assert (error.code, error.details) == ("bad_node", {"node_id": "7"})
    assert "'7'" in str(error)


def test_names_of_nodes_are_plain() -> None:
    assert refused(graph(a=("K" * 201, {}))).code == "bad_node"
    assert refused(graph(**{"\n": ("K", {})})).code == "bad_node"


@pytest.mark.parametrize("seed", [-1, 2**64 - 1 + 1, 1.5, "7", True, None, {}])
@pytest.mark.parametrize("name", ["seed", "noise_seed"])
def test_bad_seeds(name: str, seed: object) -> None:
    error = refused(graph(**{"3": ("KSampler", {name: seed})}))
    assert error.kind == "bad_request"


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**64 - 1])
def test_seeds_keep_every_digit(seed: int) -> None:
    assert json.loads(dump(sdxl(seed=seed)))["3"]["inputs"]["seed"] == seed


def test_a_seed_may_be_linked() -> None:
    sdxl(seed=["4", 0])


def test_a_nul_or_half_a_surrogate_names_its_node() -> None:
    for text in ("a\0b", "a\ud800"):
        error = refused({**SDXL, "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}}})
        assert (error.kind, error.details) == ("bad_request", {"node_id": "6"})
        assert "6.inputs.text" in str(error)


@pytest.mark.parametrize(
    ("limits", "code", "kind"),
    [
        (Limits(size_bytes=100), "workflow_too_large", "too_large"),
        (Limits(nodes=6), "too_many_nodes", "unprocessable"),
        (Limits(text_chars=10), "text_too_long", "too_large"),
        (Limits(depth=3), "bad_text", "bad_request"),
    ],
)
def test_each_limit(limits: Limits, code: str, kind: str) -> None:
    error = refused(SDXL, limits)
    assert (error.code, error.kind) == (code, kind)


def test_200_kilobytes_are_accepted_and_twenty_megabytes_are_not() -> None:
    many = graph(**{str(n): ("CLIPTextEncode", {"text": "a lighthouse at dusk " * 5}) for n in range(1500)})
    assert len(json.dumps(many)) > 200_000
    parse(json.dumps(many).encode())
    assert refused(b" " * 20_000_000).kind == "too_large"
    assert refused(graph(**{str(n): ("A", {}) for n in range(100_000)})).code == "too_many_nodes"


def test_a_megabyte_of_prompt_is_too_long() -> None:
    error = refused(graph(**{"6": ("CLIPTextEncode", {"text": "x" * 1_000_000})}))
    assert (error.kind, error.details) == ("too_large", {"node_id": "6", "input": "text"})


@pytest.mark.parametrize(
    "value",
    ["../../etc/passwd", "/etc/passwd", "..\\x", "x [output]", "x.png [temp]", "C:\\x", "x" * 300, "", ".x/a.png"],
)
@pytest.mark.parametrize(("kind", "name"), [("LoadImage", "image"), ("LoadVideo", "file")])
def test_files_to_load_stay_in_the_input_folder(kind: str, name: str, value: str) -> None:
    error = refused(graph(**{"1": (kind, {name: value})}))
    assert (error.code, error.kind, error.details["node_id"]) == ("bad_path", "unprocessable", "1")


@pytest.mark.parametrize("value", ["../x", "%date:..%", "/abs", "1/2/3/4/5/6/7/8/9/10", "a\\b", "\u202e"])
def test_files_to_save_stay_in_the_output_folder(value: str) -> None:
    error = refused(graph(**{"9": ("SomeSaver", {"filename_prefix": value})}))
    assert error.code == "bad_path" and "9" in str(error)


def test_usual_file_names_are_accepted() -> None:
    of(
        graph(
            a=("LoadImage", {"image": "sub/abc.png [input]"}),
            b=("SaveImage", {"filename_prefix": "%date%/ComfyUI", "images": ["a", 0]}),
            c=("SaveImage", {"filename_prefix": "", "images": ["a", 0]}),
            d=("LoadImageBase64", {"image": "iVBORw0KGgo/" * 100}),
        )
    )
    assert input_fault("a.png") is None


def test_a_long_chain_is_walked_without_recursion() -> None:
    chain = graph(**{str(n): ("A", {"x": [str(n - 1), 0]} if n else {}) for n in range(4999, -1, -1)})
    assert of(chain).order == tuple(str(n) for n in range(5000))
    chain["0"]["inputs"]["x"] = ["4999", 0]
    assert refused(chain).code == "cycle"


def test_set_inputs_changes_a_copy_and_nothing_else() -> None:
    before = sdxl()
    kept = dump(before)
    text = 'a "quoted" \\ ${text} 🌊'
    after = set_inputs(before, {("6", "text"): text, ("3", "seed"): 2**64 - 1})
    assert after.nodes["6"].inputs["text"] == text and after.nodes["3"].inputs["seed"] == 2**64 - 1
    assert dump(before) == kept
    assert {**after.nodes, "3": 0, "6": 0} == {**before.nodes, "3": 0, "6": 0}


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (("99", "text"), "x", "no_such_input"),
        (("6", "txet"), "x", "no_such_input"),
        (("3", "seed"), -1, "bad_seed"),
        (("6", "text"), "\0", "bad_text"),
        (("9", "filename_prefix"), "../x", "bad_path"),
        (("6", "clip"), ["6", 0], "cycle"),
    ],
)
def test_set_inputs_checks_what_it_sets(place: tuple[str, str], value: object, code: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        set_inputs(sdxl(), {place: value})
    assert caught.value.code == code


def test_dump_does_not_depend_on_order() -> None:
    backwards = {key: dict(reversed(SDXL[key].items())) for key in reversed(SDXL)}
    assert dump(of(backwards)) == dump(of(SDXL))


_inputs = st.dictionaries(
    st.sampled_from(["seed", "text", "image", "filename_prefix", "x"]),
    json_values | st.tuples(st.sampled_from("abc"), st.integers(-1, 2)).map(list),
    max_size=3,
)
_graphs = st.dictionaries(
    st.sampled_from("abcd"),
    st.fixed_dictionaries({"class_type": st.sampled_from(["A", "LoadImage"]) | any_text, "inputs": _inputs})
    | json_values,
    max_size=4,
)


@given(st.binary() | json_values.map(lambda v: json.dumps(v).encode()) | _graphs.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_give_a_workflow_that_survives_the_journey_or_one_error(raw: bytes) -> None:
    try:
        parsed = parse(raw)
    except WorkflowError as e:
        json.dumps(dict(e.details), ensure_ascii=False).encode()
        return
    assert parse(dump(parsed)) == parsed
    assert sorted(parsed.order) == sorted(parsed.nodes)
