"""Turns text out of ComfyUI into words that are safe to store, log and show.

Everything ComfyUI says is untrusted: it can be megabytes long, hold terminal escapes or halves of surrogate pairs.
Nothing here raises, whatever it is given. Pure.
"""

import re
from collections.abc import Mapping

LINE_CHARS = 2_000  # one line of error text that a person may want to read
SENTENCES = 8  # faults named in one message; the rest are counted
NODES = 100  # nodes kept in one refusal

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(text: object, limit: int = LINE_CHARS) -> str:
    """Printable text of at most `limit` characters; "" when it is not text. Line breaks and tabs stay."""
    if not isinstance(text, str):
        return ""
    # Cut first: an escape sequence is a few characters, and ten megabytes of them must not cost a second.
    cleaned = _UNPRINTABLE.sub("\ufffd", _ESCAPES.sub("", text[: limit * 4])).strip()
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def node_faults(node_errors: object) -> dict[str, tuple[str, ...]]:
    """ComfyUI's `node_errors` as node id -> sentences; {} when there are none or they make no sense."""
    if not isinstance(node_errors, Mapping):
        return {}
    faults: dict[str, tuple[str, ...]] = {}
    for node_id, report in list(node_errors.items())[:NODES]:
        if not isinstance(report, Mapping):
            continue
        found = report.get("errors")
        sentences = [_sentence(error) for error in found[:SENTENCES]] if isinstance(found, list) else []
        name = plain(report.get("class_type"), 100)
        where = f"node {plain(node_id, 100)}" + (f" ({name})" if name else "")
        faults[plain(node_id, 100)] = tuple(f"{where}: {text}" for text in sentences if text)
    return faults


def _sentence(error: object) -> str:
    if not isinstance(error, Mapping):
        return plain(error, 500)
    message, details = plain(error.get("message"), 500), plain(error.get("details"), 500)
    return f"{message}: {details}" if message and details else message or details


def refusal(error: object, faults: Mapping[str, tuple[str, ...]]) -> str:
    """One sentence for a refused prompt. Node faults come first: ComfyUI's own summary is often empty."""
    sentences = [sentence for found in faults.values() for sentence in found]
    if not sentences:
        sentences = [_sentence(error) or "it gave no reason"]
    more = len(sentences) - SENTENCES
    rest = f"; and {more} more" if more > 0 else ""
    return "ComfyUI refused the workflow: " + "; ".join(sentences[:SENTENCES]) + rest
