"""The page `gallery`. Pure."""

from __future__ import annotations

from web.pages import frame
from web.pages.frame import Frame


def page(around: Frame) -> str:
    return frame.page("gallery", around, data={})
