"""Reads config.ini, the environment and flags into one checked Config, or says exactly what is wrong.

Each value comes from the last of: default, file, FLEET_SECTION__KEY, flag. Any doubt is a ConfigError that names file,
line, section, key and the nearest valid key; nothing is guessed and nothing is written. What exists: settings.py.
"""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.protocol.errors import ConfigError
from broker.runtime.settings import (
    SECTIONS,
    SETTINGS,
    Broker,
    Files,
    Log,
    Network,
    Placement,
    Security,
    Setting,
    Web,
    Worker,
)
from broker.runtime.values import host_of, is_loopback

DEFAULT_PATH = Path(__file__).resolve().parents[2] / "config.ini"
_MAX_FILE_BYTES = 1 << 20
_PREFIX = "FLEET_"


@dataclasses.dataclass(frozen=True)
class Given:
    """A value as somebody wrote it: the text, where (`config.ini:12`, `FLEET_LOG__LEVEL`, `flag`), and what relative
    paths are seen from."""

    text: str
    where: str
    folder: Path


@dataclasses.dataclass(frozen=True)
class Config:
    network: Network = dataclasses.field(default_factory=Network)
    broker: Broker = dataclasses.field(default_factory=Broker)
    placement: Placement = dataclasses.field(default_factory=Placement)
    files: Files = dataclasses.field(default_factory=Files)
    worker: Worker = dataclasses.field(default_factory=Worker)
    web: Web = dataclasses.field(default_factory=Web)
    security: Security = dataclasses.field(default_factory=Security)
    log: Log = dataclasses.field(default_factory=Log)
    #: section.key -> what was given for it; a key that kept its default is absent.
    given: Mapping[str, Given] = dataclasses.field(default_factory=dict, repr=False)

    def effective(self) -> dict[str, str]:
        """section.key -> value and origin, for the start-up log. Secrets are masked."""
        return {name: self._shown(setting) for name, setting in SETTINGS.items()}

    def _shown(self, setting: Setting) -> str:
        given = self.given.get(setting.name)
        text, where = (given.text, given.where) if given else (setting.default, "default")
        return f"{'***' if setting.secret and text else text} ({where})"

    def error(self, name: str, reason: str) -> ConfigError:
        """A ConfigError about the setting `section.key`, naming where its value was written."""
        section, _, key = name.partition(".")
        given = self.given.get(name)
        return ConfigError(f"{given.where if given else 'default'}: [{section}] {key}: {reason}")


def load(
    path: Path = DEFAULT_PATH,
    *,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, str | None] | None = None,
) -> Config:
    """The checked configuration. `flags`: section.key -> text, None where the flag was not given.

    Raises ConfigError; the caller exits with 2 and its text.
    """
    given = {**_from_file(path), **_from_environment(environ), **_from_flags(flags or {})}
    sections = {name: _section(name, given, path.absolute().parent) for name in SECTIONS}
    config = Config(**sections, given=given)
    for name, reason in _contradictions(config):
        raise config.error(name, reason)
    if config.security.secret_key and (secret := given["security.secret_key"]).where.startswith(f"{path}:"):
        check_private(path, secret.where)
    return config


def from_arguments(
    process: str, description: str, shortcuts: Mapping[str, str], arguments: Sequence[str] | None = None
) -> Config:
    """The configuration of a process started with --config FILE, --set section.key=value, and `shortcuts`.

    process: as scripts/start_* call it.
    shortcuts: a flag ("--name") -> the setting it stands for ("worker.name").
    """
    parser = argparse.ArgumentParser(f"start_{process}", description=description, allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    for flag, name in shortcuts.items():
        metavar = SETTINGS[name].key.upper()
        parser.add_argument(flag, dest=name, metavar=metavar, help=SETTINGS[name].help.replace("%", "%%"))
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any other setting; docs/config.md"
    )
    parsed = vars(parser.parse_args(arguments))
    flags: dict[str, str | None] = {name: parsed[name] for name in shortcuts.values()}
    for pair in parsed["set"]:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"flag: --set {pair}: want SECTION.KEY=VALUE")
        flags[name] = text
    return load(parsed["config"], flags=flags)


def check_private(path: Path, where: str) -> None:
    """Raises ConfigError unless `path` is readable by its owner alone, and the owner is this process's user or root."""
    facts = path.stat()
    if facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        raise ConfigError(f"{where}: holds a secret, but others may use the file (mode {mode:04o}): chmod 600 {path}")
    if facts.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{where}: holds a secret, but user {facts.st_uid} owns the file: chown it to this user")


def _section(section: str, given: Mapping[str, Given], home: Path) -> Any:
    values: dict[str, Any] = {}
    for setting in (setting for setting in SETTINGS.values() if setting.section == section):
        found = given.get(setting.name, Given(setting.default, "default", home))
        try:
            if not found.text.isprintable() or found.text != found.text.strip():
                raise ValueError("control characters, line breaks and outer spaces are not allowed")
            value = setting.kind.parse(found.text)
        except ValueError as e:
            raise ConfigError(f"{found.where}: [{section}] {setting.key}: {e}") from e
        values[setting.field] = found.folder / value if isinstance(value, Path) else value
    return SECTIONS[section](**values)


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """What each value alone cannot show: (section.key, reason)."""
    network, broker, web = config.network, config.broker, config.web
    if broker.lease_ms < 3 * broker.heartbeat_ms:
        yield "broker.lease", "less than three times heartbeat: one late beat would cost a worker its jobs"
    if broker.backoff_max_ms < broker.backoff_ms:
        yield "broker.backoff_max", "less than backoff"
    if network.reconnect_max_ms < network.reconnect_ms:
        yield "network.reconnect_max", "less than reconnect"
    if network.max_message_bytes < web.max_body_bytes:
        yield "network.max_message", "less than [web] max_body: a workflow that is accepted could not be sent"
    if config.files.credit_bytes < config.files.chunk_bytes:
        yield "files.credit", "less than chunk"
    for name in ("clients", "workers", "events", "files"):
        if not is_loopback(host_of(getattr(network, name))) and not config.security.curve:
            yield f"network.{name}", "not on loopback, so it needs [security] curve = yes (scripts/keys makes the keys)"
    if not is_loopback(web.host) and web.token_file is None:
        yield "web.host", "not on loopback, so it needs [web] token_file"
    halves = (config.security.public_key, config.security.secret_key)
    if any(halves) and not all(halves):
        yield "security.public_key", "public_key and secret_key belong together: use the file scripts/keys made, whole"


def _from_file(path: Path) -> dict[str, Given]:
    text = _read(path)
    # DEFAULT would leak its keys into every section: renamed to what no header can say, it is a plain unknown section.
    parser = configparser.RawConfigParser(default_section="]", delimiters=("=",), empty_lines_in_values=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # keys are written as they are, lower case
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as e:
        raise ConfigError(f"{path}:{e.lineno}: a [section] header must come first") from e
    except configparser.DuplicateSectionError as e:
        raise ConfigError(f"{path}:{e.lineno}: [{e.section}] appears twice") from e
    except configparser.DuplicateOptionError as e:
        raise ConfigError(f"{path}:{e.lineno}: [{e.section}] {e.option}: appears twice") from e
    except configparser.ParsingError as e:
        raise ConfigError(f"{path}:{e.errors[0][0]}: neither a [section] nor `key = value`") from e
    if not parser.sections():
        raise ConfigError(f"{path}: is empty: want [section] headers and `key = value` lines")
    lines = _lines(text)
    given: dict[str, Given] = {}
    for section in parser.sections():
        _known_section(section, f"{path}:{lines.get((section, ''), 1)}")
        for key, value in parser.items(section):
            where = f"{path}:{lines.get((section, key), 1)}"
            given[_known(section, key, where)] = Given(value, where, path.absolute().parent)
    return given


def _read(path: Path) -> str:
    try:
        # O_NONBLOCK: a named pipe in place of the file must not hold the start for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: not a file")
            content = os.read(descriptor, _MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_FILE_BYTES} bytes: not a configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content.count(b"\n", 0, e.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from e
    if "\x00" in text:
        raise ConfigError(f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL character: not text")
    return text


def _lines(text: str) -> dict[tuple[str, str], int]:
    """(section, key) -> the line it is on, (section, "") -> the line of its header; configparser does not say."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[(.+)\]", line):
            section = header[1]
            found.setdefault((section, ""), number)
        elif (key := line.partition("=")[0].strip()) and not key.startswith(("#", ";")):
            found.setdefault((section, key), number)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    given = {}
    for variable in sorted(environ):
        if variable.startswith(_PREFIX) and "__" in variable:
            section, _, key = variable.removeprefix(_PREFIX).lower().partition("__")
            given[_known(section, key, variable)] = Given(environ[variable], variable, Path.cwd())
    return given


def _from_flags(flags: Mapping[str, str | None]) -> dict[str, Given]:
    given = {}
    for flag, text in flags.items():
        if text is not None:
            section, _, key = flag.partition(".")
            name = _known(section, key, "flag")
            if SETTINGS[name].secret:
                raise ConfigError(f"flag: [{section}] {key}: every user can read a command line: put it into a file")
            given[name] = Given(text, "flag", Path.cwd())
    return given


def _known_section(section: str, where: str) -> None:
    if section not in SECTIONS:
        nearest = difflib.get_close_matches(section, SECTIONS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{where}: [{section}]: unknown section; the nearest is [{nearest}]")


def _known(section: str, key: str, where: str) -> str:
    """`section.key` if there is such a setting; else a ConfigError with the nearest one, here or in another section."""
    _known_section(section, where)
    name = f"{section}.{key}"
    if name not in SETTINGS:
        near = difflib.get_close_matches(key, [s.key for s in SETTINGS.values() if s.section == section], 1, 0.6)
        elsewhere = [f"[{s.section}] {s.key}" for s in SETTINGS.values() if s.key == key]
        nearest = near or elsewhere or difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.0)
        raise ConfigError(f"{where}: [{section}] {key}: unknown key; the nearest is {nearest[0]}")
    return name
