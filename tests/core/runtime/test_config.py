"""config.ini → Config: where values come from, and what each bad one is answered with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.errors import ConfigError
from broker.runtime import config
from broker.runtime.config import Config, load
from broker.runtime.settings import SETTINGS

Write = Callable[[str | bytes], Path]
SECRET = "0123456789" * 4


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str | bytes) -> Path:
        path = tmp_path / "config.ini"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o600)
        return path

    return _write


def refusal(path: Path, **kwargs: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=kwargs.get("environ", {}), flags=dict(kwargs.get("flags", {})))
    text = str(caught.value)
    assert "\n" not in text
    return text


class TestOrder:
    def test_default_then_file_then_environment_then_flag(self, write: Write) -> None:
        path = write("[broker]\nheartbeat = 1 s\nlease = 20 s\naccept = 6 s\n")
        environ = {"FLEET_BROKER__LEASE": "21 s", "FLEET_BROKER__ACCEPT": "7 s", "HOME": "/"}
        found = load(path, environ=environ, flags={"broker.accept": "8 s", "worker.name": None})
        assert found.broker.heartbeat_ms == 1_000
        assert found.broker.lease_ms == 21_000
        assert found.broker.accept_ms == 8_000
        assert found.broker.attempts == 3
        assert found.worker.name == "worker-1"

    def test_relative_paths_are_seen_from_where_they_were_written(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        path = write("[web]\ntoken_file = token\n")
        found = load(path, environ={"FLEET_BROKER__DATA": "store"}, flags={"security.keys": "/abs"})
        assert found.web.token_file == tmp_path / "token"
        assert found.broker.data == here / "store"
        assert found.security.keys == Path("/abs")
        assert load(path, environ={}).broker.data == tmp_path / "data"

    def test_a_command_is_split_as_a_shell_would(self, write: Write) -> None:
        found = load(write("[worker]\nrestart = docker restart 'comfyui 1'\n"), environ={})
        assert found.worker.restart == ("docker", "restart", "comfyui 1")
        with pytest.raises(ConfigError, match="No closing quotation"):
            load(write("[worker]\nrestart = docker 'restart\n"), environ={})

    def test_units_become_plain_numbers(self, write: Write) -> None:
        found = load(write("[broker]\nstart_to_close = 2h\n[files]\nchunk = 64 KiB\n[web]\nport = *\n"), environ={})
        assert found.broker.start_to_close_ms == 7_200_000
        assert found.files.chunk_bytes == 65_536
        assert found.web.port == 0

    def test_a_percent_sign_and_a_byte_order_mark_are_plain(self, write: Write) -> None:
        found = load(write(b"\xef\xbb\xbf[broker]\ndata = %(x)s%\n"), environ={})
        assert found.broker.data.name == "%(x)s%"

    def test_lists(self, write: Write) -> None:
        found = load(write("[web]\nallowed_hosts = a.example, 10.0.0.1\n"), environ={})
        assert found.web.allowed_hosts == ("a.example", "10.0.0.1")

    def test_weights_are_owners_with_numbers(self, write: Write) -> None:
        found = load(write("[placement]\nweights = ann=2, bob = 0.5\n"), environ={})
        assert found.placement.weights == (("ann", 2.0), ("bob", 0.5))

    @pytest.mark.parametrize("weights", ["ann", "ann=0", "ann=-1", "ann=1e9", "=1", "ann=nan", "a b=1", "ann=1=2"])
    def test_a_weight_that_is_none_is_refused(self, write: Write, weights: str) -> None:
        path = write(f"[placement]\nweights = {weights}\n")
        assert refusal(path).startswith(f"{path}:2: [placement] weights: want OWNER=NUMBER, the number from 0.01 to")


class TestFlags:
    def test_a_shortcut_and_set(self, write: Write) -> None:
        arguments = ["--config", str(write("[worker]\nname = a\n")), "--name", "b", "--set", "broker.lease=1 min"]
        found = config.from_arguments("worker", "x", {"--name": "worker.name"}, arguments)
        assert (found.worker.name, found.broker.lease_ms) == ("b", 60_000)
        assert found.effective()["worker.name"] == "b (flag)"

    def test_set_without_value(self, write: Write) -> None:
        with pytest.raises(ConfigError, match=r"^flag: --set broker: want SECTION\.KEY=VALUE$"):
            config.from_arguments("worker", "x", {}, ["--config", str(write("[log]\n")), "--set", "broker"])

    def test_set_of_an_unknown_key_names_the_nearest(self, write: Write) -> None:
        with pytest.raises(ConfigError, match=r"^flag: \[broker\] leese: unknown key; the nearest is lease$"):
            config.from_arguments("worker", "x", {}, ["--config", str(write("[log]\n")), "--set", "broker.leese=1 s"])

    def test_help_names_the_script(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            config.from_arguments("worker", "x", {}, ["--help"])
        assert capsys.readouterr().out.startswith("usage: start_worker [-h] [--config FILE]")


class TestFile:
    def test_missing(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "none.ini") == f"{tmp_path}/none.ini: No such file or directory"

    def test_folder_and_pipe(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == f"{tmp_path}: not a file"
        os.mkfifo(tmp_path / "pipe")
        assert refusal(tmp_path / "pipe") == f"{tmp_path}/pipe: not a file"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
    def test_unreadable(self, write: Write) -> None:
        path = write("[log]\n")
        path.chmod(0)
        assert refusal(path) == f"{path}: Permission denied"

    @pytest.mark.parametrize(
        ("content", "line", "reason"),
        [
            (b"", None, "is empty: want [section] headers and `key = value` lines"),
            (b"# nothing\n\n", None, "is empty: want [section] headers and `key = value` lines"),
            (b"x" * (1 << 20) + b"y", None, "larger than 1048576 bytes: not a configuration"),
            (b"[log]\n\xff\xfe", 2, "not UTF-8 text"),
            (b"[log]\nlevel = in\x00fo\n", 2, "a NUL character: not text"),
            (b"\x7fELF\x02\x01\x01\x00", 1, "a NUL character: not text"),
            (b"\nlease = 10 s\n", 2, "a [section] header must come first"),
            (b"[log]\n[web]\n[log]\n", 3, "[log] appears twice"),
            (b"[log]\nlevel = info\nlevel = debug\n", 3, "[log] level: appears twice"),
            (b"[log]\nlevel info\n", 2, "neither a [section] nor `key = value`"),
            (b"[log]\n= info\n", 2, "neither a [section] nor `key = value`"),
            (b"[DEFAULT]\nlease = 1 s\n", 1, "[DEFAULT]: unknown section; the nearest is "),
            (b"# x\n[brokr]\n", 2, "[brokr]: unknown section; the nearest is [broker]"),
            (b"[broker]\nleese = 1 s\n", 2, "[broker] leese: unknown key; the nearest is lease"),
            (b"[broker]\nLease = 1 s\n", 2, "[broker] Lease: unknown key; the nearest is lease"),
            (b"[broker]\nhost = x\n", 2, "[broker] host: unknown key; the nearest is [web] host"),
            (b"[broker]\nzzz = x\n", 2, "[broker] zzz: unknown key; the nearest is "),
            (b"[log]\n\n# c\nlevel = info\n  debug\n", 4, "[log] level: control characters, line breaks and "),
            (b"[web]\ntoken_file = a\x1bb\n", 2, "[web] token_file: control characters, line breaks and "),
        ],
    )
    def test_broken(self, write: Write, content: bytes, line: int | None, reason: str) -> None:
        path = write(content)
        assert refusal(path).startswith(f"{path}{f':{line}' if line else ''}: {reason}")


class TestValues:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            *(("web.port", text) for text in ("0x10", "0", "65536", "-1", "", " 80", "8O", "٣", "1e3", "+80", "8_0")),
            *(
                ("broker.lease", text)
                for text in ("10", "10 sec", "1.5 s", "-10 s", "", "s", "10s s", "11 min", "99 ms")
            ),
            *(("files.chunk", text) for text in ("256", "256 KB", "256 kib", "1 GiB", "0 B", "1 TiB")),
            *(("broker.attempts", text) for text in ("0", "21", "three", "3.0", "", "9" * 30)),
            *(("security.curve", text) for text in ("", "true", "1", "Yes", "maybe")),
            *(("worker.name", text) for text in ("", "-a", "a b", "a/b", "../x", "ä", "x" * 64, "a\n")),
            *(
                ("worker.comfyui", text)
                for text in ("", "127.0.0.1:8188", "ftp://h", "http://", "http://h:0", "http://h:x")
            ),
            *(
                ("worker.comfyui", text)
                for text in (
                    "http://u:p@h",
                    "http://h/?q",
                    "http://h/#f",
                    "http://h:99999",
                    "http:/h",
                    "http://h/p",
                    "https://h",
                )
            ),
            *(
                ("network.workers", text)
                for text in ("", "127.0.0.1:5571", "ipc:///x", "tcp://*:1", "tcp://h:0", "tcp://h")
            ),
            *(("network.workers", text) for text in ("tcp://[::g]:1", "tcp://h:65536", "tcp://a b:1", "tcp://h:1/x")),
            *(("web.host", text) for text in ("", "a b", "::zz", "h:80", "-a")),
            *(("log.level", text) for text in ("", "INFO", "loud")),
            ("broker.data", ""),
            ("web.allowed_hosts", "a,,b"),
            ("worker.labels", ",".join(["x"] * 33)),
        ],
    )
    def test_refused_everywhere_with_its_place(self, write: Write, name: str, text: str) -> None:
        section, key = name.split(".")
        path = write("[log]\n")
        variable = f"FLEET_{section}__{key}".upper()
        assert refusal(path, environ={variable: text}).startswith(f"{variable}: [{section}] {key}: ")
        assert refusal(path, flags={name: text}).startswith(f"flag: [{section}] {key}: ")
        if text == text.strip() and "\n" not in text:
            path = write(f"[{section}]\n\n{key} = {text}\n")
            assert refusal(path).startswith(f"{path}:3: [{section}] {key}: ")

    @given(name=st.sampled_from(sorted(SETTINGS)), text=st.text(max_size=60))
    def test_any_text_is_a_value_or_a_config_error(self, name: str, text: str) -> None:
        try:
            found = load(flags={name: text}, environ={})
        except ConfigError as e:
            assert str(e).isprintable()
        else:
            assert isinstance(found, Config)

    def test_an_unknown_variable_is_refused(self, write: Write) -> None:
        text = refusal(write("[log]\n"), environ={"FLEET_BROKER__LEESE": "1 s", "FLEET_OTHER": "not ours to judge"})
        assert text == "FLEET_BROKER__LEESE: [broker] leese: unknown key; the nearest is lease"

    def test_a_missing_unit_is_explained(self, write: Write) -> None:
        path = write("[broker]\nlease = 10\n")
        assert (
            refusal(path) == f"{path}:2: [broker] lease: want a duration with its unit, from 500 ms to 10 min, got '10'"
        )


class TestContradictions:
    @pytest.mark.parametrize(
        ("text", "line", "start"),
        [
            ("[broker]\nheartbeat = 4 s\nlease = 11 s\n", 3, "[broker] lease: less than three times heartbeat"),
            ("[broker]\nbackoff = 10 s\nbackoff_max = 9 s\n", 3, "[broker] backoff_max: "),
            ("[network]\nreconnect_max = 100 ms\n", 2, "[network] reconnect_max: "),
            ("[network]\nmax_message = 1 MiB\n", 2, "[network] max_message: "),
            ("[files]\ncredit = 8 KiB\n", 2, "[files] credit: "),
            (
                "[network]\nworkers = tcp://0.0.0.0:5571\n",
                2,
                "[network] workers: not on loopback, so it needs [security]",
            ),
            ("[network]\nfiles = tcp://gpu-host:5573\n", 2, "[network] files: not on loopback"),
            ("[network]\nevents = tcp://[::]:5573\n", 2, "[network] events: not on loopback"),
            ("[network]\nclients = tcp://127.0.0.1.example:5570\n", 2, "[network] clients: not on loopback"),
            ("[web]\nhost = 0.0.0.0\n", 2, "[web] host: not on loopback, so it needs [web] token_file"),
            ("[web]\nhost = ::\n", 2, "[web] host: not on loopback"),
            (f"[security]\npublic_key = {SECRET}\n", 2, "[security] public_key: public_key and secret_key belong"),
        ],
    )
    def test_refused(self, write: Write, text: str, line: int, start: str) -> None:
        path = write(text)
        assert refusal(path).startswith(f"{path}:{line}: {start}")

    def test_a_default_that_no_longer_fits_is_named_as_default(self, write: Write) -> None:
        assert refusal(write("[broker]\nheartbeat = 5 s\n")).startswith("default: [broker] lease: ")

    def test_loopback_in_every_spelling_and_curve_elsewhere(self, write: Write) -> None:
        assert load(write("[network]\nworkers = tcp://[::1]:5571\nfiles = tcp://localhost:1\n"), environ={})
        found = load(write("[network]\nworkers = tcp://0.0.0.0:5571\n[security]\ncurve = yes\n"), environ={})
        assert found.security.curve
        assert load(write("[web]\nhost = 0.0.0.0\ntoken_file = token\n"), environ={}).web.host == "0.0.0.0"


class TestSecrets:
    def test_are_masked(self, write: Write) -> None:
        path = write(f"[security]\npublic_key = {SECRET}\nsecret_key = {SECRET[::-1]}\n")
        found = load(path, environ={})
        shown = found.effective()
        assert shown["security.secret_key"] == f"*** ({path}:3)"
        assert shown["security.broker_key"] == " (default)"
        assert shown["broker.lease"] == "10 s (default)"
        assert SECRET[::-1] not in repr(shown) + repr(found)

    def test_a_command_line_is_no_place_for_one(self, write: Write) -> None:
        text = refusal(write("[log]\n"), flags={"security.secret_key": SECRET})
        assert text == "flag: [security] secret_key: every user can read a command line: put it into a file"

    def test_a_bad_secret_is_not_repeated(self, write: Write) -> None:
        text = refusal(write("[security]\nsecret_key = hunter2\n"))
        assert "hunter2" not in text
        assert "want a key of 40 characters" in text

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
    def test_a_file_that_others_can_read_may_hold_none(self, write: Write, mode: int) -> None:
        path = write(f"[security]\npublic_key = {SECRET}\nsecret_key = {SECRET[::-1]}\n")
        path.chmod(mode)
        assert refusal(path) == (
            f"{path}:3: holds a secret, but others may use the file (mode {mode:04o}): chmod 600 {path}"
        )
