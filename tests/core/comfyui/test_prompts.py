"""What a picture is searched by."""

from comfyui.library import BUILT_IN, load_templates
from comfyui.prompts import TEXT_CHARS, prompt_text
from comfyui.workflow import set_inputs

TEMPLATES = load_templates(BUILT_IN)[0]


def test_what_is_wanted_is_found_and_what_is_not_wanted_left_out() -> None:
    text = prompt_text(TEMPLATES["text-to-image"].workflow)
    assert text == "a lighthouse at dusk, waves, warm light in the windows"
    story = prompt_text(TEMPLATES["story"].workflow)
    assert "green raincoat" in story and "mends a net" in story
    assert "bad anatomy" not in story and "fp8" not in story


def test_a_long_text_is_cut() -> None:
    workflow = set_inputs(TEMPLATES["text-to-image"].workflow, {("6", "text"): "x" * 9_000})
    assert prompt_text(workflow) == "x" * TEXT_CHARS
