"""What a value of config.ini may look like: one class per kind, each a parser with its range in words.

`parse` turns text into a checked value or raises ValueError with the reason; `wants` says in the manual what it takes.
Units are written by people ("2 s", "256 KiB") and become plain ints (ms, bytes). Pure: no files, no clock.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import shlex
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
#: 32 bytes in ZeroMQ's printable form (RFC 32/Z85).
Z85_KEY = re.compile(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")
#: A DNS name or an IPv4 address; no user part, no spaces, nothing that a shell or a log could read otherwise.
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_ENDPOINT = re.compile(rf"tcp://(?P<host>{_HOST}|\[[0-9A-Fa-f:.]+\]):(?P<port>\*|[0-9]{{1,5}})")


class Kind(Protocol):
    @property
    def wants(self) -> str:
        """Unit and range, for people."""

    def parse(self, text: str) -> Any:
        """The value. Raises ValueError with the reason."""


@dataclasses.dataclass(frozen=True)
class Whole:
    low: int
    high: int

    @property
    def wants(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not self.low <= int(text) <= self.high:
            raise ValueError(f"want {self.wants}, got {text!r}")
        return int(text)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """A whole number with its unit. The bounds are written the same way, so that the manual can repeat them."""

    low: str
    high: str
    units = _MS
    noun = "a duration"

    @property
    def wants(self) -> str:
        return f"{self.noun} with its unit, from {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        value = self._plain(text)
        if not self._plain(self.low) <= value <= self._plain(self.high):
            raise ValueError(f"want {self.wants}, got {text!r}")
        return value

    def _plain(self, text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,12}) ?([A-Za-z]+)", text)
        if match is None or match[2] not in self.units:
            raise ValueError(f"want {self.wants}, got {text!r}")
        return int(match[1]) * self.units[match[2]]


@dataclasses.dataclass(frozen=True)
class Duration(_Measured):
    """Parsed to milliseconds."""


@dataclasses.dataclass(frozen=True)
class Size(_Measured):
    """Parsed to bytes."""

    units = _BYTES
    noun = "a size"


@dataclasses.dataclass(frozen=True)
class Port:
    """A TCP port to listen on; `*` lets the kernel choose (parsed to 0), and the ready line says which it was."""

    wants = "a port from 1 to 65535, or * for any free one"

    def parse(self, text: str) -> int:
        return 0 if text == "*" else _port(text, self.wants)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where the broker listens and the others dial."""

    wants = "an address tcp://HOST:PORT; PORT is 1 to 65535, or * for any free one"

    def parse(self, text: str) -> str:
        match = _ENDPOINT.fullmatch(text)
        if match is None:
            raise ValueError(f"want {self.wants}, got {text!r}")
        if match["host"].startswith("["):
            _ip(match["host"][1:-1])
        if match["port"] != "*":
            _port(match["port"], self.wants)
        return text


@dataclasses.dataclass(frozen=True)
class Host:
    """An address to listen on."""

    wants = "an IP address or a host name"

    def parse(self, text: str) -> str:
        if ":" in text:
            _ip(text)
        elif not re.fullmatch(_HOST, text):
            raise ValueError(f"want {self.wants}, got {text!r}")
        return text


@dataclasses.dataclass(frozen=True)
class Many:
    """Some of a kind, parsed to a tuple."""

    item: Kind
    most: int

    @property
    def wants(self) -> str:
        return f"nothing, or {self.item.wants}; at most {self.most}, separated by commas"

    def parse(self, text: str) -> tuple[Any, ...]:
        items = tuple(self.item.parse(part.strip()) for part in text.split(",")) if text else ()
        if len(items) > self.most:
            raise ValueError(f"want at most {self.most} items, got {len(items)}")
        return items


@dataclasses.dataclass(frozen=True)
class Weight:
    """An owner and a number, parsed to a pair."""

    wants = "OWNER=NUMBER, the number from 0.01 to 100"

    def parse(self, text: str) -> tuple[str, float]:
        match = re.fullmatch(r"([^=\s]{1,64}) ?= ?([0-9]{1,3}(?:\.[0-9]{1,3})?)", text)
        if match is None or not 0.01 <= float(match[2]) <= 100:
            raise ValueError(f"want {self.wants}, got {text!r}")
        return match[1], float(match[2])


@dataclasses.dataclass(frozen=True)
class Url:
    """An http address without user, path, query or fragment; a closing slash is dropped."""

    wants = "an address http://HOST:PORT"

    def parse(self, text: str) -> str:
        refusal = ValueError(f"want {self.wants}, got {text!r}")
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as e:
            raise refusal from e
        more = parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/")
        plain = not more and text.isprintable()
        if parts.scheme != "http" or not host or port == 0 or not plain or " " in text:
            raise refusal
        return text.rstrip("/")


@dataclasses.dataclass(frozen=True)
class Flag:
    wants = "yes or no"

    def parse(self, text: str) -> bool:
        if text not in ("yes", "no"):
            raise ValueError(f"want {self.wants}, got {text!r}")
        return text == "yes"


@dataclasses.dataclass(frozen=True)
class Choice:
    names: tuple[str, ...]

    @property
    def wants(self) -> str:
        return "one of " + ", ".join(self.names)

    def parse(self, text: str) -> str:
        if text not in self.names:
            raise ValueError(f"want {self.wants}, got {text!r}")
        return text


@dataclasses.dataclass(frozen=True)
class Word:
    """Text of one shape."""

    shape: re.Pattern[str]
    wants: str

    def parse(self, text: str) -> str:
        if not self.shape.fullmatch(text):
            raise ValueError(f"want {self.wants}, got {text!r}")
        return text


@dataclasses.dataclass(frozen=True)
class Command:
    """A program with its arguments, quoted as in a shell, which is not asked; parsed to a tuple."""

    wants = "nothing, or a command with its arguments; no shell reads it"

    def parse(self, text: str) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(text))
        except ValueError as e:
            raise ValueError(f"want {self.wants}, got {text!r}: {e}") from e


@dataclasses.dataclass(frozen=True)
class Key:
    """One half of a CURVE key pair in Z85, or nothing. A refused secret is not repeated."""

    secret: bool = False
    wants = "a key of 40 characters, or nothing"

    def parse(self, text: str) -> str:
        if text and not Z85_KEY.fullmatch(text):
            raise ValueError(f"want {self.wants}" + ("" if self.secret else f", got {text!r}"))
        return text


@dataclasses.dataclass(frozen=True)
class FilePath:
    """A file or folder. Relative in config.ini: seen from that file; in a flag or the environment: from here."""

    wants = "a path"

    def parse(self, text: str) -> Path:
        if not text:
            raise ValueError(f"want {self.wants}, got nothing")
        return Path(text)


@dataclasses.dataclass(frozen=True)
class OptionalPath:
    """As FilePath; nothing means none."""

    wants = "a path, or nothing"

    def parse(self, text: str) -> Path | None:
        return Path(text) if text else None


def host_of(endpoint: str) -> str:
    """The host part of an endpoint, an IPv6 address without its brackets."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None:
        raise ValueError(f"{endpoint!r} is no tcp endpoint")
    return match["host"].strip("[]")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost is taken for another machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(text: str, wants: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"want {wants}, got {text!r}")
    return int(text)


def _ip(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as e:
        raise ValueError(f"{text!r} is no IP address") from e
