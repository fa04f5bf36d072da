"""Who gets past the broker's door: known keys to their own sockets, and nobody else, on one machine and between two."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from broker.protocol.errors import ConfigError
from broker.runtime import gate, keys, sockets
from broker.runtime.config import Config, load
from broker.runtime.gate import Allowed
from broker.runtime.keys import Identity
from broker.runtime.settings import Network
from tests.process import door
from tests.process.door import ANY_PORT, Door, ended, heard, knock
from tests.process.hosts import NEAR_ADDRESS, two_hosts

SOCKETS = ("clients", "workers", "events", "files")
DOOR = [sys.executable, "-m", "tests.process.door"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A fleet's configuration with keys for its broker, its web and the worker gpu-1."""
    path = tmp_path / "config.ini"
    path.write_text("[security]\ncurve = yes\n")
    config = load(path, environ={})
    keys.make_broker(config.security.keys)
    keys.make_peer(config, "web", "web", None)
    keys.make_peer(config, "worker", "gpu-1", None)
    return config


@pytest.fixture
def opened(config: Config) -> Iterator[Door]:
    with door.opened(config.security.keys, ANY_PORT, of(config, "broker")) as opened:
        yield opened


def of(config: Config, name: str) -> Identity:
    found = keys.identity(config, name)
    assert found is not None
    return found


def strange(config: Config) -> Identity:
    """A key pair that nobody put on the list, with the right key of the broker."""
    public, secret = zmq.curve_keypair()
    return Identity(public.decode(), secret.decode(), of(config, "broker").public)


class TestOneMachine:
    @pytest.mark.parametrize("name", ["gpu-1", "web"])
    @pytest.mark.parametrize("socket", SOCKETS)
    def test_a_known_key_gets_into_the_sockets_of_its_role_only(
        self, config: Config, opened: Door, name: str, socket: str
    ) -> None:
        role = "web" if name == "web" else "worker"
        with knock(socket, opened.network, of(config, name)) as peer:
            assert ended(opened, peer) == ("in" if socket in keys.ROLES[role] else "refused")

    @pytest.mark.parametrize("socket", SOCKETS)
    def test_a_strange_key_and_no_key_are_refused(self, config: Config, opened: Door, socket: str) -> None:
        with knock(socket, opened.network, strange(config)) as peer:
            assert ended(opened, peer) == "refused"
        with knock(socket, opened.network, None) as peer:
            assert ended(opened, peer) == "refused"

    def test_the_wrong_broker_is_not_spoken_to(self, config: Config, opened: Door) -> None:
        impostor, _ = zmq.curve_keypair()
        with knock(
            "workers", opened.network, dataclasses.replace(of(config, "gpu-1"), broker=impostor.decode())
        ) as peer:
            assert ended(opened, peer) == "refused"

    def test_the_name_behind_a_message_comes_from_its_key(self, config: Config, opened: Door) -> None:
        with knock("workers", opened.network, of(config, "gpu-1"), b"session-1") as peer:
            assert ended(opened, peer) == "in"
            peer.socket.send_multipart([b"CF1", b"\x01", b"I say I am gpu-2"])
            name, frames = heard(opened)
        assert [frame.bytes for frame in frames[:2]] == [b"session-1", b"CF1"]
        for frame in frames:
            found = opened.allowed.peer(sockets.key_of(frame), name)
            assert found is not None
            assert (found.role, found.name) == ("worker", "gpu-1")

    def test_without_a_gate_nobody_gets_in(self, config: Config) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = sockets.router(context, "workers", ANY_PORT, of(config, "broker"))
        network = Network(workers=sockets.endpoint_of(router))
        with knock("workers", network, of(config, "gpu-1")) as peer:
            assert peer.monitor.poll(15_000)
            while (end := peer.end()) is None:
                assert peer.monitor.poll(15_000)
            assert end == "refused"
            assert not router.poll(0)
        router.close()
        context.term()

    def test_a_revoked_key_is_out_at_once_and_the_others_come_back(self, config: Config, opened: Door) -> None:
        keys.make_peer(config, "worker", "gpu-2", None)
        assert not opened.allowed.revoked()
        with (
            knock("workers", opened.network, of(config, "gpu-1"), b"one") as first,
            knock("workers", opened.network, of(config, "gpu-2"), b"two") as second,
        ):
            assert ended(opened, first) == ended(opened, second) == "in"
            keys.revoke(config.security.keys, "gpu-1")
            assert opened.allowed.revoked()
            assert not opened.allowed.revoked()
            for socket in opened.bound.values():
                sockets.rebind(socket)
            assert ended(opened, first) == ended(opened, second) == "refused"  # cut off
            assert ended(opened, second) == "in"
            assert ended(opened, first) == "refused"
            second.socket.send(b"still here")
            assert heard(opened)[1][0].bytes == b"two"

    def test_a_key_made_while_the_broker_runs_gets_in(self, config: Config, opened: Door) -> None:
        keys.make_peer(config, "worker", "gpu-9", None)
        with knock("workers", opened.network, of(config, "gpu-9")) as peer:
            assert ended(opened, peer) == "in"

    def test_refusals_are_logged_with_the_key_and_not_each_one(
        self, config: Config, opened: Door, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate, "_QUIET_MS", 4_000 * door.LONG_S)  # three tries are over before
        stranger = strange(config)
        for _ in range(3):
            with knock("workers", opened.network, stranger) as peer:
                assert ended(opened, peer) == "refused"
        (record,) = [record for record in caplog.records if record.name == "broker.runtime.gate"]
        assert record.fields["key"] == stranger.public  # type: ignore[attr-defined]
        assert record.fields["socket"] == "workers"  # type: ignore[attr-defined]


class TestTheList:
    def test_a_line_that_is_none_stops_the_start_and_lets_nobody_in_later(
        self, config: Config, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = config.security.keys / "allowed"
        allowed = Allowed(config.security.keys)
        key = of(config, "gpu-1").public
        assert allowed.peer(key, "workers") is not None
        path.write_text(f"worker gpu-1 {key[:39]}\nadmin gpu-1 {key}\n# worker gpu-1 {key}\n\n")
        assert allowed.peer(key, "workers") is None
        assert [record.message.split(":")[1] for record in caplog.records] == ["1", "2"]
        with pytest.raises(ConfigError, match=r"allowed:1: not `role name key`"):
            Allowed(config.security.keys)

    def test_a_list_that_others_can_write_is_no_list(self, config: Config) -> None:
        allowed = Allowed(config.security.keys)
        (config.security.keys / "allowed").chmod(0o666)
        assert allowed.peer(of(config, "gpu-1").public, "workers") is None
        with pytest.raises(ConfigError, match=r"others may write it \(mode 0666\)"):
            Allowed(config.security.keys)

    def test_a_list_that_is_gone_lets_nobody_in(self, config: Config) -> None:
        allowed = Allowed(config.security.keys)
        (config.security.keys / "allowed").unlink()
        assert allowed.peer(of(config, "gpu-1").public, "workers") is None
        assert allowed.revoked()


class TestWithoutKeys:
    @pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:*", "tcp://[::]:*", "tcp://broker-host:5571"])
    def test_nothing_leaves_this_machine(self, endpoint: str) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        network = Network(workers=endpoint)
        with pytest.raises(ConfigError, match=r"\[network\] workers = .*: not on loopback, so it needs"):
            sockets.router(context, "workers", network, None)
        with pytest.raises(ConfigError, match=r"\[network\] workers = .*: not on loopback, so it needs"):
            sockets.dealer(context, "workers", network, None, b"x")
        context.term()


class TestTwoMachines:
    def test_a_key_from_elsewhere_gets_in_and_a_strange_one_does_not(self, tmp_path: Path) -> None:
        here = tmp_path / "config.ini"
        any_address = "".join(f"{name} = tcp://0.0.0.0:{5570 + i}\n" for i, name in enumerate(SOCKETS))
        here.write_text(f"[security]\ncurve = yes\n[network]\n{any_address}")
        config = load(here, environ={})
        keys.make_broker(config.security.keys)
        known, strange = tmp_path / "gpu-1.ini", tmp_path / "gpu-2.ini"
        for path in (known, strange):
            path.touch(0o600)
            path.write_text(keys.make_peer(config, "worker", path.stem, NEAR_ADDRESS))
        keys.revoke(config.security.keys, "gpu-2")
        with two_hosts() as (near, far), started([*near, *DOOR, "serve", str(here)]) as served:
            assert served.stdout is not None
            assert served.stdout.readline() == "ready\n"
            for path, end in ((strange, "refused\n"), (known, "in\n")):
                with started([*far, *DOOR, "knock", str(path), "workers"]) as knocking:
                    assert knocking.communicate(timeout=60)[0] == end
            assert served.stdout.readline() == "workers gpu-1 hello\n"


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            yield process
        finally:
            process.kill()
