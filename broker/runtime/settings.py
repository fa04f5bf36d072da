"""Every setting there is: the one declaration from which config.ini, docs/config.md and the parser are made.

A class is a section, a field is a key: its name loses the unit (`lease_ms` is the key `lease`), its metadata holds the
kind of value and the help. Reads nothing: config.py does. Calling a class without arguments gives the defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from broker.protocol.ids import WORKER_NAME
from broker.runtime.values import (
    Choice,
    Command,
    Duration,
    Endpoint,
    FilePath,
    Flag,
    Host,
    Key,
    Kind,
    Many,
    OptionalPath,
    Port,
    Size,
    Url,
    Weight,
    Whole,
    Word,
)

_UNITS = ("_ms", "_bytes")
_Section = TypeVar("_Section")


def _setting(kind: Kind, *, default: str, help: str) -> Any:
    metadata = {"kind": kind, "text": default, "help": help}
    return dataclasses.field(default=kind.parse(default), metadata=metadata, repr=not _is_secret(kind))


def _is_secret(kind: Kind) -> bool:
    return isinstance(kind, Key) and kind.secret


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(_setting,))
def _section(declaration: type[_Section]) -> type[_Section]:
    return dataclasses.dataclass(frozen=True, kw_only=True)(declaration)


@_section
class Network:
    """Where the broker listens, and where workers and web processes dial. Off loopback needs [security] curve = yes."""

    clients: str = _setting(Endpoint(), default="tcp://127.0.0.1:5570", help="Requests of web processes.")
    workers: str = _setting(Endpoint(), default="tcp://127.0.0.1:5571", help="Workers.")
    events: str = _setting(Endpoint(), default="tcp://127.0.0.1:5572", help="Events and previews for web processes.")
    files: str = _setting(Endpoint(), default="tcp://127.0.0.1:5573", help="Uploads and outputs, in chunks.")
    max_message_bytes: int = _setting(
        Size("1 MiB", "64 MiB"),
        default="8 MiB",
        help="The largest frame a socket takes; who sends more is cut off. Not below [web] max_body.",
    )
    queue: int = _setting(
        Whole(16, 100_000),
        default="1000",
        help="Messages a socket holds for one peer in each direction; beyond that a slow watcher loses events.",
    )
    reconnect_ms: int = _setting(
        Duration("10 ms", "10 s"),
        default="200 ms",
        help="The first wait before a lost broker is dialled again; doubles each time.",
    )
    reconnect_max_ms: int = _setting(Duration("100 ms", "5 min"), default="10 s", help="The longest such wait.")


@_section
class Broker:
    """The queue: leases, attempts, limits."""

    data: Path = _setting(
        FilePath(),
        default="data",
        help="Folder of the database and the stored files. On a local disk: not NFS, not shared.",
    )
    min_free_bytes: int = _setting(
        Size("1 MiB", "1 TiB"),
        default="512 MiB",
        help="With less room on that disk submits are refused (507) and nothing more is begun; what runs ends well.",
    )
    keep_for_ms: int = _setting(
        Duration("0 s", "36500 d"),
        default="0 s",
        help="How long a job that is over is kept, and with it the files that no other job names; 0 s: for ever.",
    )
    keep_jobs: int = _setting(
        Whole(0, 100_000_000),
        default="0",
        help="How many jobs that are over are kept; beyond that those that ended first go, as above. 0: all.",
    )
    heartbeat_ms: int = _setting(
        Duration("100 ms", "1 min"), default="2 s", help="How often a worker reports; the broker tells it so."
    )
    lease_ms: int = _setting(
        Duration("500 ms", "10 min"),
        default="10 s",
        help="A worker silent for this long has lost its jobs. At least three times heartbeat.",
    )
    accept_ms: int = _setting(
        Duration("200 ms", "10 min"),
        default="5 s",
        help="A dispatch that is not confirmed within this time is taken back.",
    )
    attempts: int = _setting(
        Whole(1, 20),
        default="3",
        help="How often infrastructure (not the workflow) may fail a job before the job has failed.",
    )
    deaths: int = _setting(
        Whole(1, 20),
        default="3",
        help="How many workers a job may take down before it has failed and is kept for a person to look at.",
    )
    breaker: int = _setting(
        Whole(1, 100),
        default="3",
        help="How many different jobs in a row may fail on a worker for reasons of its own before it gets no more "
        "until a probe has succeeded there.",
    )
    backoff_ms: int = _setting(
        Duration("10 ms", "1 h"),
        default="500 ms",
        help="The first wait before a retry, at most: drawn at random; doubles each time.",
    )
    backoff_max_ms: int = _setting(Duration("10 ms", "1 d"), default="30 s", help="The longest such wait.")
    start_to_close_ms: int = _setting(
        Duration("1 s", "7 d"), default="30 min", help="A job that runs longer than this is stopped and has failed."
    )
    stall_ms: int = _setting(
        Duration("10 s", "1 d"),
        default="5 min",
        help="A running job of which nothing moves for this long is stopped. Some nodes are silent for minutes.",
    )
    prefetch: int = _setting(
        Whole(0, 8),
        default="1",
        help="Prompts staged in ComfyUI's own queue behind the running one, so that the card never waits.",
    )
    max_queued: int = _setting(
        Whole(1, 10_000_000),
        default="1000000",
        help="Jobs waiting in the whole fleet; beyond that a submit is refused (503).",
    )
    max_queued_per_owner: int = _setting(
        Whole(1, 10_000_000), default="100000", help="Jobs of one owner waiting; beyond that a submit is refused (429)."
    )


@_section
class Placement:
    """Which job goes next, and to which worker. docs/placement.md says how it is decided, and why."""

    policy: str = _setting(
        Choice(("finish_time", "affinity_only", "least_loaded", "round_robin_weighted")),
        default="finish_time",
        help=(
            "finish_time: where the job is expected to be done soonest, loading of models included; it may wait for a "
            "busy worker that holds them. affinity_only: where its models are. least_loaded: where the least work is. "
            "round_robin_weighted: each worker in its turn, a faster card more often."
        ),
    )
    max_running_per_owner: int = _setting(
        Whole(0, 100_000),
        default="0",
        help="Jobs of one owner that workers may hold at once, the rest waits; 0: as many as there is room for.",
    )
    weights: tuple[tuple[str, float], ...] = _setting(
        Many(Weight(), 1_000),
        default="",
        help="The share of the fleet that an owner gets beside others who want it too; 1 for whoever is not named.",
    )


@_section
class Files:
    """The file channel between workers, web processes and the broker's disk."""

    chunk_bytes: int = _setting(
        Size("4 KiB", "1 MiB"),
        default="256 KiB",
        help="Size of one piece; small, so that a large file delays nothing else.",
    )
    credit_bytes: int = _setting(
        Size("4 KiB", "64 MiB"),
        default="2 MiB",
        help="How much of one file may be under way before the receiver has confirmed it.",
    )
    max_file_bytes: int = _setting(Size("1 MiB", "64 GiB"), default="2 GiB", help="The largest file that is stored.")


@_section
class Worker:
    """One worker: one process that drives one ComfyUI container."""

    name: str = _setting(
        Word(WORKER_NAME, "1 to 63 letters, digits, dots, dashes or underscores, a letter or digit first"),
        default="worker-1",
        help="Its name in the fleet, different for each worker.",
    )
    comfyui: str = _setting(Url(), default="http://127.0.0.1:8188", help="The ComfyUI it drives; one worker for each.")
    labels: tuple[str, ...] = _setting(
        Many(Word(WORKER_NAME, "a word such as fast or a100"), 32),
        default="",
        help="A job that asks for labels runs where all are.",
    )
    restart: tuple[str, ...] = _setting(
        Command(),
        default="",
        help="What starts its ComfyUI anew, such as docker restart comfyui-1. Used when the card fails everything, "
        "when ComfyUI has long not answered, and when an admin asks. Nothing: a person has to.",
    )
    restart_after_ms: int = _setting(
        Duration("10 s", "1 d"),
        default="5 min",
        help="How long ComfyUI may be away before that, and the least time between two restarts.",
    )
    history_poll_ms: int = _setting(
        Duration("100 ms", "5 min"),
        default="5 s",
        help="After this much silence ComfyUI is asked what really happened.",
    )
    progress_per_s: int = _setting(Whole(1, 100), default="10", help="Progress reports of one job, a second at most.")
    previews_per_s: int = _setting(
        Whole(0, 60), default="4", help="Preview pictures of one job, a second at most; 0 sends none."
    )


@_section
class Web:
    """The page and the API."""

    host: str = _setting(Host(), default="127.0.0.1", help="Address to listen on. Off loopback needs token_file.")
    port: int = _setting(Port(), default="8080", help="Port to listen on.")
    token_file: Path | None = _setting(
        OptionalPath(),
        default="",
        help="File (mode 0600) of who may use page and API; scripts/keys token makes it. Nothing: everybody, as admin.",
    )
    templates: Path = _setting(
        FilePath(),
        default="templates",
        help="Folder of the templates that are added on the page or by hand, beside those that come with the program.",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        Many(Host(), 20),
        default="",
        help="Names besides localhost and the address above under which browsers may reach the page.",
    )
    max_body_bytes: int = _setting(
        Size("64 KiB", "8 MiB"),
        default="4 MiB",
        help="The largest JSON body, so the largest workflow; beyond that 413.",
    )
    max_upload_bytes: int = _setting(
        Size("64 KiB", "1 GiB"), default="32 MiB", help="The largest uploaded file; beyond that 413."
    )
    max_sockets: int = _setting(
        Whole(1, 100_000), default="2000", help="Browsers that may watch at once through this process; beyond that 503."
    )
    reply_ms: int = _setting(
        Duration("100 ms", "1 min"),
        default="5 s",
        help="How long a request waits for the broker's reply before it answers 503.",
    )


@_section
class Security:
    """Who may connect to the broker. scripts/keys makes what this section needs."""

    curve: bool = _setting(
        Flag(),
        default="no",
        help="Encrypt all four sockets of the broker, and let in none but the keys in the key folder's list.",
    )
    keys: Path = _setting(
        FilePath(), default="keys", help="Folder of key files (each mode 0600) and of the list `allowed`."
    )
    public_key: str = _setting(
        Key(),
        default="",
        help="This and the next two: only in a file made by scripts/keys. Nothing: taken from the key folder.",
    )
    secret_key: str = _setting(
        Key(secret=True), default="", help="The secret half of public_key; the file that holds it must be mode 0600."
    )
    broker_key: str = _setting(Key(), default="", help="The public key of the broker to trust.")


@_section
class Log:
    """What goes to standard error."""

    level: str = _setting(
        Choice(("debug", "info", "warning", "error")), default="info", help="The least that is written."
    )
    format: str = _setting(
        Choice(("auto", "json", "text")),
        default="auto",
        help="auto: text on a terminal, else one JSON object per line.",
    )


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key, as the manual shows it."""

    section: str
    key: str
    field: str
    kind: Kind
    default: str
    help: str

    @property
    def secret(self) -> bool:
        """Whether its value may be shown to nobody."""
        return _is_secret(self.kind)

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


SECTIONS: dict[str, type[Any]] = {
    "network": Network,
    "broker": Broker,
    "placement": Placement,
    "files": Files,
    "worker": Worker,
    "web": Web,
    "security": Security,
    "log": Log,
}


def _declared() -> Iterator[Setting]:
    for section, declaration in SECTIONS.items():
        for field in dataclasses.fields(declaration):
            key = next((field.name.removesuffix(unit) for unit in _UNITS if field.name.endswith(unit)), field.name)
            yield Setting(section, key, field.name, *(field.metadata[part] for part in ("kind", "text", "help")))


#: section.key -> its declaration, in the order of config.ini.
SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _declared()}
