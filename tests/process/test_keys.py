"""scripts/keys from the outside: what it prints, what it leaves on disk, and what it refuses."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from broker.protocol.errors import ConfigError
from broker.runtime import keys
from broker.runtime.config import load

SCRIPT = Path(__file__).parents[2] / "scripts" / "keys"


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.ini"
    path.write_text("[security]\ncurve = yes\n")
    return path


def run(path: Path, *arguments: str, status: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of `scripts/keys arguments`, which must end with `status`."""
    command = [sys.executable, str(SCRIPT), "--config", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_worker_elsewhere_needs_exactly_what_is_printed(config_path: Path, tmp_path: Path) -> None:
    broker_key = run(config_path, "broker")[0].strip()
    printed, remark = run(config_path, "worker", "gpu-7", "--host", "10.1.2.3")
    assert remark == ""
    received = tmp_path / "elsewhere.ini"
    received.touch(0o600)
    received.write_text(printed)
    config = load(received, environ={})
    assert config.worker.name == "gpu-7"
    assert config.network.workers == "tcp://10.1.2.3:5571"
    assert config.network.files == "tcp://10.1.2.3:5573"
    own = keys.identity(config, config.worker.name)
    assert own is not None
    assert own.broker == broker_key
    assert zmq.curve_public(own.secret.encode()).decode() == own.public
    assert keys.read_allowed(tmp_path / "keys" / "allowed") == ({own.public: keys.Peer("worker", "gpu-7")}, [])
    # A worker on the broker's own host finds the same key in the folder.
    assert keys.identity(load(config_path, environ={}), "gpu-7") == own


def test_no_file_is_ever_open_to_others(config_path: Path, tmp_path: Path) -> None:
    run(config_path, "broker")
    run(config_path, "web")
    run(config_path, "worker", "gpu-7")
    folder = tmp_path / "keys"
    assert mode(folder) == 0o700
    names = {path.name: mode(path) for path in folder.iterdir()}
    assert names == dict.fromkeys((".gitignore", "allowed", "broker.ini", "web.ini", "worker-gpu-7.ini"), 0o600)
    assert (folder / ".gitignore").read_text() == "*\n"


def test_asking_again_changes_no_key(config_path: Path) -> None:
    assert run(config_path, "broker") == run(config_path, "broker")
    first = run(config_path, "worker", "gpu-7", "--host", "10.0.0.1")[0]
    second = run(config_path, "worker", "gpu-7", "--host", "10.0.0.2")[0]
    assert second == first.replace("10.0.0.1", "10.0.0.2")
    assert len(run(config_path, "list")[0].splitlines()) == 1


def test_list_and_revoke(config_path: Path, tmp_path: Path) -> None:
    run(config_path, "broker")
    for name in ("gpu-7", "gpu-70"):
        run(config_path, "worker", name)
    run(config_path, "web")
    assert [line.split()[:2] for line in run(config_path, "list")[0].splitlines()] == [
        ["web", "web"],
        ["worker", "gpu-7"],
        ["worker", "gpu-70"],
    ]
    run(config_path, "revoke", "gpu-7")
    assert [line.split()[1] for line in run(config_path, "list")[0].splitlines()] == ["web", "gpu-70"]
    assert not (tmp_path / "keys" / "worker-gpu-7.ini").exists()
    with pytest.raises(ConfigError, match=r"no such key file.*make it with scripts/keys worker gpu-7"):
        keys.identity(load(config_path, environ={}), "gpu-7")


def test_a_key_made_after_a_revocation_is_another(config_path: Path) -> None:
    run(config_path, "broker")
    worker = "worker", "gpu-7", "--host", "10.0.0.1"
    before = run(config_path, *worker)[0]
    run(config_path, "revoke", "gpu-7")
    assert run(config_path, *worker)[0] != before


def test_the_secret_is_in_no_output_but_the_one_file(config_path: Path, tmp_path: Path) -> None:
    secrets = set()
    outputs = [*run(config_path, "broker"), run(config_path, "worker", "gpu-7")[1], *run(config_path, "list")]
    for path in (tmp_path / "keys").glob("*.ini"):
        secrets.add(load(path, environ={}).security.secret_key)
    assert len(secrets) == 2
    assert not [text for text in outputs for secret in secrets if secret in text]


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (("worker", "gpu-7"), "{keys}: holds no broker key: run scripts/keys broker first"),
        (("worker", "../gpu"), "'../gpu' is no worker name"),
        (("worker", "web"), "'web' is no worker name"),
        (("revoke", "gpu-7"), "gpu-7 is not on the list {keys}/allowed; on it: nobody"),
    ],
)
def test_refused_without_a_broker_key(
    config_path: Path, tmp_path: Path, arguments: tuple[str, ...], start: str
) -> None:
    _, error = run(config_path, *arguments, status=2)
    assert error.startswith("comfyfleet: " + start.format(keys=tmp_path / "keys"))
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "keys" / "allowed").exists()


def test_addresses_that_nobody_can_dial_are_refused(config_path: Path) -> None:
    run(config_path, "broker")
    config_path.write_text("[security]\ncurve = yes\n[network]\nworkers = tcp://0.0.0.0:5571\n")
    assert "name its address with --host" in run(config_path, "worker", "gpu-7", status=2)[1]
    assert "tcp://gpu.example:5571" in run(config_path, "worker", "gpu-7", "--host", "gpu.example")[0]
    assert "--host: want an IP address or a host name" in run(config_path, "worker", "a", "--host", "a b", status=2)[1]
    config_path.write_text("[security]\ncurve = yes\n[network]\nworkers = tcp://127.0.0.1:*\n")
    assert "has no fixed port" in run(config_path, "worker", "gpu-8", status=2)[1]


@pytest.mark.parametrize(("peer", "file"), [(("web",), "web.ini"), (("worker", "gpu-7"), "worker-gpu-7.ini")])
def test_a_key_that_is_used_where_it_is_kept_is_not_shown(
    config_path: Path, tmp_path: Path, peer: tuple[str, ...], file: str
) -> None:
    run(config_path, "broker")
    path = tmp_path / "keys" / file
    remark = f"comfyfleet: {path} is read on this machine; for another machine add --host\n"
    assert run(config_path, *peer) == ("", remark)
    assert keys.identity(load(config_path, environ={}), peer[-1]) is not None
    assert run(config_path, *peer, "--host", "127.0.0.1") == (path.read_text(), "")


def test_a_key_for_the_addresses_that_are_written_down_is_printed(config_path: Path, tmp_path: Path) -> None:
    endpoints = "".join(f"{name} = tcp://10.1.2.3:557{n}\n" for n, name in enumerate(("workers", "files")))
    config_path.write_text(f"[security]\ncurve = yes\n[network]\n{endpoints}")
    run(config_path, "broker")
    assert run(config_path, "worker", "gpu-7") == ((tmp_path / "keys" / "worker-gpu-7.ini").read_text(), "")


class TestDamagedFiles:
    @pytest.fixture(autouse=True)
    def made(self, config_path: Path) -> None:
        run(config_path, "broker")
        run(config_path, "worker", "gpu-7")

    def refusal(self, config_path: Path, name: str) -> str:
        with pytest.raises(ConfigError) as caught:
            keys.identity(load(config_path, environ={}), name)
        return str(caught.value)

    @pytest.mark.parametrize("name", ["broker", "gpu-7"])
    def test_open_to_others(self, config_path: Path, tmp_path: Path, name: str) -> None:
        path = keys.key_file(tmp_path / "keys", name)
        path.chmod(0o644)
        assert "others may use the file (mode 0644): chmod 600" in self.refusal(config_path, name)
        if name == "broker":
            assert "(mode 0644): chmod 600" in run(config_path, "worker", "gpu-8", status=2)[1]

    def test_secret_replaced_by_the_public_half(self, config_path: Path, tmp_path: Path) -> None:
        path = keys.key_file(tmp_path / "keys", "gpu-7")
        security = load(path, environ={}).security
        path.write_text(path.read_text().replace(security.secret_key, security.public_key))
        assert "secret_key and public_key do not belong together" in self.refusal(config_path, "gpu-7")

    def test_cut_off(self, config_path: Path, tmp_path: Path) -> None:
        path = keys.key_file(tmp_path / "keys", "gpu-7")
        whole = path.read_text()
        path.write_text(whole[:-2])
        assert "want a key of 40 characters" in self.refusal(config_path, "gpu-7")
        path.write_text(whole[: whole.index("secret_key")])
        assert "belong together" in self.refusal(config_path, "gpu-7")
        path.write_text(whole[: whole.index("broker_key")])
        assert "holds no secret_key and broker_key" in self.refusal(config_path, "gpu-7")

    def test_gone_but_still_allowed(self, config_path: Path, tmp_path: Path) -> None:
        keys.key_file(tmp_path / "keys", "gpu-7").unlink()
        assert "run scripts/keys revoke gpu-7 first" in run(config_path, "worker", "gpu-7", status=2)[1]

    def test_a_draft_left_behind(self, config_path: Path, tmp_path: Path) -> None:
        (tmp_path / "keys" / "allowed.new").touch()
        assert "another scripts/keys is at work, or one was cut off" in run(config_path, "revoke", "gpu-7", status=2)[1]
        assert len(run(config_path, "list")[0].splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_changes_stays_its_owners(config_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    run(config_path, "broker")
    run(config_path, "worker", "gpu-7")
    for path in (folder, folder / "allowed"):
        os.chown(path, 65_534, 65_534)
    run(config_path, "revoke", "gpu-7")
    run(config_path, "token", "ada")
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (folder / "allowed", folder / "tokens")}
    assert owners == {"allowed": (65_534, 65_534), "tokens": (65_534, 65_534)}


def test_a_list_that_cannot_be_read_is_named(config_path: Path, tmp_path: Path) -> None:
    run(config_path, "broker")
    (tmp_path / "keys" / "allowed").mkdir()
    assert "keys/allowed: Is a directory" in run(config_path, "list", status=2)[1]


def test_a_full_disk_leaves_no_half_of_a_key(config_path: Path, tmp_path: Path) -> None:
    # No byte may be written to any file.
    command = ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", sys.executable, "-B", str(SCRIPT)]
    said = subprocess.run(
        [*command, "--config", str(config_path), "broker"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (said.returncode, said.stderr) == (2, f"comfyfleet: {tmp_path}/keys/.gitignore: File too large\n")
    assert list((tmp_path / "keys").iterdir()) == []
    run(config_path, "broker")


def test_a_new_key_of_the_broker(config_path: Path, tmp_path: Path) -> None:
    first = run(config_path, "broker")[0]
    keys.key_file(tmp_path / "keys", "broker").unlink()
    assert run(config_path, "broker")[0] != first


def test_without_curve_there_is_no_identity(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[log]\n")
    assert keys.identity(load(path, environ={}), "broker") is None
