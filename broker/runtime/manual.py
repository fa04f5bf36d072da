"""Writes config.ini and docs/config.md from the settings: `python -m broker.runtime.manual` in a checkout.

A test fails when either differs from what this module would write. Part of no running process.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from broker.runtime.config import DEFAULT_PATH
from broker.runtime.settings import SECTIONS, SETTINGS, Setting

_INI_HEAD = """\
# The settings of comfyfleet, all of them, each with its default. docs/config.md tells how values are found and written.
"""

_DOC_HEAD = """\
# Settings

The broker, the workers and the web processes read `config.ini`; `--config FILE` names another. A setting takes the last
of these that is given: its default, the file, the environment variable `FLEET_SECTION__KEY` (for example
`FLEET_BROKER__LEASE="20 s"`), a flag (`--set broker.lease="20 s"`, or one of its own such as `--name`).

Durations and sizes carry their unit: `500 ms`, `2 s`, `10 min`, `1 h`, `1 d`; `512 B`, `256 KiB`, `1 MiB`, `2 GiB`. A
relative path is seen from the folder of the file; in the environment or a flag, from the current folder. A value is all
that follows the `=`: a comment has its own line. An unknown key or a bad value ends the process with status 2 and one
line that names file, line, section and key, before anything is opened. What is in force is logged at the start, secrets
masked.

This page and `config.ini` are written by `python -m broker.runtime.manual` from `broker/runtime/settings.py`.
"""


def config_ini() -> str:
    """The text of config.ini: every key with its help, what it takes, and its default."""
    return "".join([_INI_HEAD, *(_ini_section(section) for section in SECTIONS)])


def config_md() -> str:
    """The text of docs/config.md: the same as tables."""
    return "".join([_DOC_HEAD, *(_doc_section(section) for section in SECTIONS)])


def _ini_section(section: str) -> str:
    entries = "".join(
        f"\n{_comment(setting.help)}{_comment(_wants(setting))}{setting.key} = {setting.default}".rstrip() + "\n"
        for setting in _settings(section)
    )
    return f"\n{_comment(_about(section))}[{section}]\n{entries}"


def _doc_section(section: str) -> str:
    rows = "".join(
        f"| `{setting.key}` | {f'`{setting.default}`' if setting.default else 'nothing'} | {_wants(setting)} "
        f"| {setting.help} |\n"
        for setting in _settings(section)
    )
    head = "| key | default | takes | what it is |\n|---|---|---|---|\n"
    return f"\n## [{section}]\n\n{_about(section)}\n\n{head}{rows}"


def _settings(section: str) -> Iterator[Setting]:
    return (setting for setting in SETTINGS.values() if setting.section == section)


def _about(section: str) -> str:
    return (SECTIONS[section].__doc__ or "").strip()


def _wants(setting: Setting) -> str:
    return setting.kind.wants[:1].upper() + setting.kind.wants[1:] + "."


def _comment(text: str) -> str:
    return textwrap.fill(text, 110, initial_indent="# ", subsequent_indent="# ") + "\n"


if __name__ == "__main__":
    DEFAULT_PATH.write_text(config_ini(), encoding="utf-8")
    (DEFAULT_PATH.parent / "docs" / "config.md").write_text(config_md(), encoding="utf-8")
