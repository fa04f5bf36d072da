"""CURVE keys on disk: makes them, reads them, and keeps the list of who may connect.

The folder holds one small settings file per process (mode 0600, with its secret) and `allowed`, the list of public keys
the broker lets in: lines of `role name key`. Opens no socket; gate.py asks the list. scripts/keys is its face.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import zmq

from broker.protocol.errors import ConfigError
from broker.protocol.ids import WORKER_NAME
from broker.runtime.config import Config, load
from broker.runtime.settings import Network, Security
from broker.runtime.values import Z85_KEY, host_of, is_loopback

#: Which sockets of the broker a key of each role may use.
ROLES: Mapping[str, frozenset[str]] = {
    "worker": frozenset({"workers", "files"}),
    "web": frozenset({"clients", "events", "files"}),
}
#: Whose an access token of the web is.
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
#: Names of keys that are no worker's.
RESERVED = ("broker", "web")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a process needs to prove who it is, and to know the broker. Keys are Z85 text."""

    public: str
    secret: str = dataclasses.field(repr=False)
    broker: str


@dataclasses.dataclass(frozen=True)
class Peer:
    role: str
    name: str


def identity(config: Config, name: str) -> Identity | None:
    """The keys of process `name` ("broker", "web" or a worker's name); None when [security] curve is off.

    They stand in the configuration itself (a file made by scripts/keys) or in its file in the key folder.
    Raises ConfigError for missing, mismatched or exposed keys.
    """
    if not config.security.curve:
        return None
    if config.security.secret_key:
        return _checked(config.security, "[security]")
    path = key_file(config.security.keys, name)
    if not path.exists():
        what = f"worker {name}" if name not in RESERVED else name
        raise ConfigError(f"{path}: no such key file, and [security] curve = yes: make it with scripts/keys {what}")
    return _checked(load(path, environ={}).security, str(path))


def key_file(folder: Path, name: str) -> Path:
    """Where the key of `name` is kept."""
    return folder / (f"{name}.ini" if name in RESERVED else f"worker-{name}.ini")


def make_broker(folder: Path) -> str:
    """Make the broker's key unless it exists. Returns its public half."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = key_file(folder, "broker")
    if not path.exists():
        public, secret = _pair()
        if not (folder / ".gitignore").exists():
            _create(folder / ".gitignore", "*\n")
        _create(path, _head("the broker") + _security(public, secret, public))
    return _read_own(path).public


def make_peer(config: Config, role: str, name: str, host: str | None) -> str:
    """Make and allow the key of a worker or of the web unless it is there. Returns the text of its one file.

    host: the name by which the peer reaches the broker; None: the one in [network].
    """
    folder = config.security.keys
    if role == "worker" and (name in RESERVED or not WORKER_NAME.fullmatch(name)):
        raise ConfigError(f"{name!r} is no worker name: 1 to 63 letters, digits, . - _; not {' or '.join(RESERVED)}")
    if not key_file(folder, "broker").exists():
        raise ConfigError(f"{folder}: holds no broker key: run scripts/keys broker first, on the broker's host")
    path, allowed = key_file(folder, name), folder / "allowed"
    addresses = _network(config.network, ROLES[role], host)
    if path.exists():
        own = _read_own(path)
        public, secret = own.public, own.secret
    elif Peer(role, name) in read_allowed(allowed)[0].values():
        raise ConfigError(f"{name} is allowed already, but {path} is gone: run scripts/keys revoke {name} first")
    else:
        public, secret = _pair()
    whose, about = (f"worker {name}", f"[worker]\nname = {name}\n\n") if role == "worker" else ("the web", "")
    text = _head(whose) + addresses + about + _security(public, secret, make_broker(folder))
    _replace(path, text)
    with _editing(allowed) as lines:
        if not any(line.split()[-1:] == [public] for line in lines):
            lines.append(f"{role} {name} {public}")
    return text


def make_token(path: Path, owner: str, *, admin: bool) -> str:
    """A new access token for the web. Its digest is added to the file at `path`; the token itself is kept nowhere."""
    if not OWNER.fullmatch(owner):
        raise ConfigError(f"{owner!r} is no owner: 1 to 64 letters, digits, . - _ @, a letter or digit first")
    token = secrets.token_urlsafe(32)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _editing(path) as lines:
        lines.append(f"{owner} {hashlib.sha256(token.encode()).hexdigest()}{' admin' if admin else ''}")
    return token


def revoke(folder: Path, name: str) -> None:
    """Take every key of `name` off the list and delete its file. A running broker notices within a second."""
    with _editing(folder / "allowed") as lines:
        kept = [line for line in lines if line.split()[1:2] != [name] or line.startswith("#")]
        if len(kept) == len(lines):
            names = sorted({peer.name for peer in read_allowed(folder / "allowed")[0].values()})
            raise ConfigError(f"{name} is not on the list {folder / 'allowed'}; on it: {', '.join(names) or 'nobody'}")
        lines[:] = kept
    key_file(folder, name).unlink(missing_ok=True)


def read_allowed(path: Path) -> tuple[dict[str, Peer], list[str]]:
    """public key -> who has it, and a complaint for each line that is none: such a line lets nobody in.

    A missing list is an empty one. Raises ConfigError when it cannot be read, or others than its owner could write it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}, []
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    if mode & 0o022:
        raise ConfigError(f"{path}: others may write it (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")
    peers: dict[str, Peer] = {}
    complaints: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 3 and words[0] in ROLES and WORKER_NAME.fullmatch(words[1]) and Z85_KEY.fullmatch(words[2]):
            peers[words[2]] = Peer(words[0], words[1])
        else:
            complaints.append(
                f"{path}:{number}: not `role name key`, role one of {', '.join(ROLES)}: it lets nobody in"
            )
    return peers, complaints


def reaches_only_this_host(text: str) -> bool:
    """Whether a peer's file names addresses that no other machine can dial."""
    addresses = [line.split(" = ")[1] for line in text.splitlines() if " = tcp://" in line]
    return all(is_loopback(host_of(address)) for address in addresses)


def _pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _read_own(path: Path) -> Identity:
    return _checked(load(path, environ={}).security, str(path))


def _checked(security: Security, where: str) -> Identity:
    if not security.secret_key or not security.broker_key:
        raise ConfigError(f"{where}: holds no secret_key and broker_key: make it anew with scripts/keys")
    if zmq.curve_public(security.secret_key.encode()) != security.public_key.encode():
        raise ConfigError(f"{where}: secret_key and public_key do not belong together: make it anew with scripts/keys")
    return Identity(security.public_key, security.secret_key, security.broker_key)


def _head(whose: str) -> str:
    return f"# comfyfleet: settings and secret key of {whose}. For that process alone: keep it mode 0600.\n\n"


def _network(network: Network, names: frozenset[str], host: str | None) -> str:
    lines = ["[network]"]
    for name in sorted(names):
        endpoint = getattr(network, name)
        target = host if host is not None else host_of(endpoint)
        port = endpoint.rpartition(":")[2]
        if target in ("0.0.0.0", "::"):
            raise ConfigError(
                f"[network] {name} = {endpoint} is where the broker listens: name its address with --host"
            )
        if port == "*":
            raise ConfigError(f"[network] {name} = {endpoint} has no fixed port for others to dial")
        lines.append(f"{name} = tcp://{f'[{target}]' if ':' in target else target}:{port}")
    return "\n".join(lines) + "\n\n"


def _security(public: str, secret: str, broker: str) -> str:
    return f"[security]\ncurve = yes\npublic_key = {public}\nsecret_key = {secret}\nbroker_key = {broker}\n"


@contextlib.contextmanager
def _editing(path: Path) -> Iterator[list[str]]:
    """The lines of a file, written back whole at the end: a reader sees all of the old or all of the new."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    yield lines
    _replace(path, "".join(line + "\n" for line in lines))


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    _create(draft, text, whose=path if path.exists() else path.parent)
    draft.replace(path)


def _create(path: Path, text: str, *, whose: Path | None = None) -> None:
    """A new file that was never readable by others, not even empty: the mode comes with its creation.

    Root makes it for the owner of `whose`, the folder unless named: a list that only root could read would cut the
    fleet of a broker off that runs as a user of its own.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as e:
        raise ConfigError(f"{path}: exists: another scripts/keys is at work, or one was cut off: then delete it") from e
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                owner, made = (whose if whose is not None else path.parent).stat(), os.fstat(descriptor)
                if (owner.st_uid, owner.st_gid) != (made.st_uid, made.st_gid):
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(text)
    except OSError as e:
        path.unlink(missing_ok=True)  # half a key would stand in the way of a whole one
        raise ConfigError(f"{path}: {e.strerror}") from e
