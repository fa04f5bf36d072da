"""The design system keeps its promise of contrast, in both themes: WCAG 2.2 AA."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import web

STATIC = Path(web.__path__[0]) / "static"
CSS = (STATIC / "design.css").read_text("utf-8")

#: Text on what it stands on: 4.5 to 1.
TEXT = [
    *((text, ground) for text in ("ink", "soft", "bad", "work-text") for ground in ("paper", "raised")),
    ("soft", "line"),
    ("bad", "bad-wash"),
    ("paper", "ink"),
    ("lamp-ink", "lamp"),
    ("ink", "mat"),
]
#: What must be seen to use the page, on what it stands on: 3 to 1.
GRAPHICS = [
    *((part, ground) for part in ("edge", "work", "focus", "good") for ground in ("paper", "raised")),
    ("bad", "raised"),
]


def tokens(theme: int) -> dict[str, str]:
    """The colours of design.css in the light (0) or the dark (1) theme."""
    found = {}
    for name, value in re.findall(r"--([\w-]+): ([^;]+);", CSS):
        colours = re.findall(r"#[0-9a-f]{6}", value)
        if colours:
            found[name] = colours[theme if "light-dark" in value else 0]
    return found


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_can_be_read(theme: int, text: str, ground: str) -> None:
    colours = tokens(theme)
    assert contrast(colours[text], colours[ground]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("part", "ground"), GRAPHICS)
def test_signs_can_be_seen(theme: int, part: str, ground: str) -> None:
    colours = tokens(theme)
    assert contrast(colours[part], colours[ground]) >= 3


def test_contrast_is_reckoned_as_the_standard_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_colours_are_named_in_one_place() -> None:
    others = [path for path in STATIC.glob("*.css") if path.name != "design.css"]
    assert [path.name for path in others if re.search(r"#[0-9a-fA-F]{3,8}\b(?![\w-]* *[{,])", path.read_text())] == []


def test_who_wants_no_motion_gets_none() -> None:
    assert "prefers-reduced-motion: reduce" in CSS
