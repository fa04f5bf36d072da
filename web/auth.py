"""Who is asking: access tokens, the cookie of the page, and whether a request came from our own page.

A token file has lines `owner token-sha256 [admin]`; the tokens themselves are nowhere on this machine. A cookie is
signed with the digest of the token it was given for: taking a line out signs those browsers out, on every web process,
and nothing need be stored. Without a token file everybody is the admin `local`; the configuration then allows loopback
only.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from broker.protocol.errors import ConfigError
from broker.runtime.clock import now
from broker.runtime.config import check_private
from web.viewer import Viewer

log = logging.getLogger(__name__)

COOKIE: Final = "comfyfleet"
SESSION_MS: Final = 14 * 24 * 3_600_000
LOCAL: Final = Viewer("local", True)
#: Wrong tokens from one address within a minute; then the login page says to wait. Who has the right one comes in all
#: the same: behind a proxy all have one address, and nobody guesses 256 random bits, which programs may send as often
#: as they like.
MAX_FAILURES: Final = 10
_FAILURE_MS: Final = 60_000
_MAX_ADDRESSES: Final = 10_000
#: How often the token file is looked at.
_LOOK_MS: Final = 1_000

_LINE = re.compile(r"(?P<owner>[A-Za-z0-9][A-Za-z0-9._@-]{0,63})\s+(?P<digest>[0-9a-f]{64})(?P<admin>\s+admin)?")
_COOKIE = re.compile(
    r"(?P<until>[0-9]{13,15})\.(?P<nonce>[0-9a-f]{32})\.(?P<mac>[0-9a-f]{64})\.(?P<owner>[^;\s]{1,64})"
)


def read_tokens(path: Path) -> dict[str, Viewer]:
    """Digest of each token -> who it is. Raises ConfigError for a file that is missing, exposed or not this format."""
    where = f"[web] token_file {path}"
    try:
        check_private(path, where)
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where}: cannot be read: {e}") from e
    found: dict[str, Viewer] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ConfigError(f"{where}:{number}: want `owner sha256-of-the-token [admin]`")
        found[match["digest"]] = Viewer(match["owner"], match["admin"] is not None)
    if not found:
        raise ConfigError(f"{where}: names no token: want lines `owner sha256-of-the-token [admin]`")
    return found


class Gate:
    """Tells who sent a request."""

    def __init__(self, token_file: Path | None) -> None:
        """Raises ConfigError when there is a token file and it is not usable."""
        self._path = token_file
        self._tokens = read_tokens(token_file) if token_file is not None else {}
        self._stamp = self._look()
        self._looked_ms = now().monotonic_ms
        #: Sessions that signed out, until they would have ended anyway.
        self._signed_out: dict[str, int] = {}
        #: Address -> when it gave wrong tokens, within the last minute.
        self._failures: dict[str, list[int]] = {}

    @property
    def open(self) -> bool:
        """Whether nobody needs a token."""
        return self._path is None

    def identify(self, environ: Mapping[str, Any]) -> Viewer | None:
        """Who sent this request, or None. A wrong bearer token is not made good by a cookie."""
        if self.open:
            return LOCAL
        self._refresh()
        if "HTTP_AUTHORIZATION" in environ:
            scheme, _, token = environ["HTTP_AUTHORIZATION"].partition(" ")
            return self._owner_of(token.strip()) if scheme.lower() == "bearer" else None
        session = _session(environ)
        return self._session_owner(session) if session is not None else None

    def wait_ms(self, address: str) -> int:
        """How long this address is told to wait with a wrong token; 0: not at all."""
        at = now().monotonic_ms
        recent = [failed for failed in self._failures.get(address, []) if at - failed < _FAILURE_MS]
        return recent[0] + _FAILURE_MS - at if len(recent) >= MAX_FAILURES else 0

    def sign_in(self, token: str, address: str) -> str | None:
        """The value of a cookie for whoever has this token; None for a wrong one, which is counted."""
        self._refresh()
        digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        viewer = self._owner_of(token)
        if viewer is None:
            at = now().monotonic_ms
            if len(self._failures) >= _MAX_ADDRESSES:
                self._failures.clear()
            recent = [failed for failed in self._failures.get(address, []) if at - failed < _FAILURE_MS]
            self._failures[address] = [*recent, at][:MAX_FAILURES]
            return None
        until, nonce = now().utc_ms + SESSION_MS, secrets.token_hex(16)
        return f"{until}.{nonce}.{_mac(digest, until, nonce, viewer.owner)}.{viewer.owner}"

    def sign_out(self, environ: Mapping[str, Any]) -> None:
        session = _session(environ)
        if session is not None and self._session_owner(session) is not None:
            at = now().utc_ms
            self._signed_out = {nonce: until for nonce, until in self._signed_out.items() if until > at}
            self._signed_out[session["nonce"]] = int(session["until"])

    def _owner_of(self, token: str) -> Viewer | None:
        digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        found = None
        for known, viewer in self._tokens.items():  # all of them: how long it takes tells nothing
            if hmac.compare_digest(known, digest):
                found = viewer
        return found

    def _session_owner(self, session: re.Match[str]) -> Viewer | None:
        until, nonce, owner = int(session["until"]), session["nonce"], session["owner"]
        if until <= now().utc_ms or nonce in self._signed_out:
            return None
        found = None
        for digest, viewer in self._tokens.items():
            if viewer.owner == owner and hmac.compare_digest(_mac(digest, until, nonce, owner), session["mac"]):
                found = viewer
        return found

    def _refresh(self) -> None:
        """Re-read the token file when it changed; an unusable one lets nobody in until it is mended."""
        if self._path is None or now().monotonic_ms - self._looked_ms < _LOOK_MS:
            return
        self._looked_ms = now().monotonic_ms
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = read_tokens(self._path)
            log.info("read the token file again")
        except ConfigError as e:
            self._tokens = {}
            log.error("nobody can sign in", extra={"fields": {"why": str(e)}})

    def _look(self) -> tuple[int, ...]:
        try:
            facts = self._path.stat() if self._path is not None else None
        except OSError:
            return ()
        return (facts.st_mtime_ns, facts.st_size, facts.st_ino, facts.st_mode) if facts is not None else ()


def is_same_origin(environ: Mapping[str, Any], *, must_say: bool) -> bool:
    """Whether this request comes from our own page, or from no page at all.

    must_say: it carries a cookie, which a browser adds by itself, so it has to name its Origin.
    """
    origin, host = environ.get("HTTP_ORIGIN"), environ["HTTP_HOST"]
    if origin is None:
        return not must_say and environ.get("HTTP_SEC_FETCH_SITE", "none") in ("same-origin", "none")
    return origin in (f"http://{host}", f"https://{host}") and environ.get("HTTP_SEC_FETCH_SITE", "same-origin") in (
        "same-origin",
        "none",
    )


def has_bearer(environ: Mapping[str, Any]) -> bool:
    """Whether it carries what no browser adds by itself. The password of a proxy in front is added like a cookie."""
    return str(environ.get("HTTP_AUTHORIZATION", "")).lower().startswith("bearer ")


def has_cookie(environ: Mapping[str, Any]) -> bool:
    """Whether it is a cookie that says who sent this request."""
    return "HTTP_AUTHORIZATION" not in environ and f"{COOKIE}=" in environ.get("HTTP_COOKIE", "")


def set_cookie(value: str, environ: Mapping[str, Any]) -> str:
    """The Set-Cookie header for a session; an empty value ends it."""
    secure = "; Secure" if environ.get("HTTP_ORIGIN", "").startswith("https://") else ""
    seconds = SESSION_MS // 1000 if value else 0
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def _mac(digest: str, until: int, nonce: str, owner: str) -> str:
    return hmac.new(bytes.fromhex(digest), f"{until}.{nonce}.{owner}".encode(), "sha256").hexdigest()


def _session(environ: Mapping[str, Any]) -> re.Match[str] | None:
    """The session cookie of a request; None when there is none, or more than one."""
    pairs = [part.strip().partition("=") for part in environ.get("HTTP_COOKIE", "").split(";")]
    values = [value for name, _, value in pairs if name == COOKIE]
    return _COOKIE.fullmatch(values[0]) if len(values) == 1 else None
