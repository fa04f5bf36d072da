from hypothesis import given
from hypothesis import strategies as st

from comfyui.words import SENTENCES, node_faults, plain, refusal
from tests.core.comfyui.strategies import any_text, json_values


def test_plain_drops_escapes_and_marks_what_cannot_be_printed() -> None:
    assert plain("\x1b[31mred\x1b[0m \x1b]0;title\x07a\x00b\udcff\n") == "red a\ufffdb\ufffd"


def test_plain_keeps_lines_and_is_empty_for_what_is_not_text() -> None:
    assert plain("one\n\ttwo") == "one\n\ttwo"
    assert plain(7) == plain(None) == plain(["x"]) == ""


def test_plain_cuts_ten_megabytes_of_escapes() -> None:
    cut = plain("\x1b[31mx" * 2_000_000, 50)
    assert len(cut) <= 50 and set(cut) <= {"x", "…"}


@given(any_text, st.integers(1, 40))
def test_plain_is_short_and_can_be_stored(text: str, limit: int) -> None:
    cleaned = plain(text, limit)
    assert len(cleaned) <= limit and "\x00" not in cleaned and "\x1b" not in cleaned
    cleaned.encode()


@given(json_values, json_values)
def test_any_refusal_becomes_a_sentence(error: object, node_errors: object) -> None:
    assert refusal(error, node_faults(node_errors)).startswith("ComfyUI refused the workflow: ")


def test_node_faults_name_the_node_and_its_class() -> None:
    faults = node_faults(
        {
            "4": {
                "errors": [{"type": "value_not_in_list", "message": "Value not in list", "details": "ckpt_name: 'x'"}],
                "dependent_outputs": ["9"],
                "class_type": "CheckpointLoaderSimple",
            }
        }
    )
    assert faults == {"4": ("node 4 (CheckpointLoaderSimple): Value not in list: ckpt_name: 'x'",)}
    summary = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}
    assert refusal(summary, faults) == f"ComfyUI refused the workflow: {faults['4'][0]}"


def test_a_refusal_without_node_faults_gives_comfyuis_own_words() -> None:
    assert refusal({"message": "Prompt has no outputs", "details": ""}, {}).endswith(": Prompt has no outputs")
    assert refusal(None, {}).endswith(": it gave no reason")


def test_a_refusal_counts_the_faults_it_does_not_list() -> None:
    faults = {str(n): (f"node {n}: bad",) for n in range(SENTENCES + 3)}
    assert refusal(None, faults).endswith("; and 3 more")
