"""The compose file put on without an engine: closed from the first start, healthy, and a job goes all the way."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.containers.rehearsal import STATE, Rehearsal, rehearsal
from tests.process.journal import until


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """One machine with one card, all of it up."""
    with rehearsal(tmp_path_factory.mktemp("rehearsal"), "head,gpu0") as running:
        assert running.run("keys").returncode == 0
        for name in ("comfyui-0", "broker", "web", "worker-0"):
            running.up(name)
        yield running


@pytest.fixture(scope="module")
def token(stage: Rehearsal) -> str:
    return stage.run("broker", "cat", f"{STATE}/keys/first-token").stdout.strip()


def test_the_first_token_opens_the_api_and_none_does_not(stage: Rehearsal, token: str) -> None:
    assert [worker["name"] for worker in stage.call("GET", "/api/v1/workers", token)["workers"]] == ["gpu0"]
    for wrong in ("", token[:-1], "x" * len(token)):
        with pytest.raises(subprocess.CalledProcessError):
            stage.call("GET", "/api/v1/workers", wrong)


def test_a_job_goes_all_the_way(stage: Rehearsal, token: str) -> None:
    body = {"template": "text-to-image", "params": {"prompt": "a lighthouse"}}
    job = until(lambda: posted(stage, token, body), "the web to know the workers")
    state = until(lambda: ended(stage, token, job["id"]), "the job to end")
    assert state == "succeeded"


def posted(stage: Rehearsal, token: str, body: object) -> dict[str, str] | None:
    try:
        answer: dict[str, str] = stage.call("POST", "/api/v1/jobs", token, body)
    except subprocess.CalledProcessError:
        return None
    return answer


def ended(stage: Rehearsal, token: str, job_id: str) -> str | None:
    state: str = stage.call("GET", f"/api/v1/jobs/{job_id}", token)["state"]
    return state if state in ("succeeded", "failed", "cancelled") else None


def test_comfyui_has_been_warmed_up(stage: Rehearsal) -> None:
    until(lambda: stage.run("comfyui-0", "test", "-e", "/opt/data/warm").returncode == 0, "the warm-up")


@pytest.mark.parametrize("name", ["broker", "web", "worker-0"])
def test_every_health_check_passes(stage: Rehearsal, name: str) -> None:
    until(lambda: stage.healthy(name), f"{name} to be healthy")


def test_a_broker_whose_loop_hangs_is_found_by_its_own_check_and_the_webs(stage: Rehearsal) -> None:
    until(lambda: stage.healthy("broker") and stage.healthy("web"), "the start")
    stage.processes["broker"].signal(signal.SIGSTOP)
    try:
        assert not stage.healthy("broker")
        until(lambda: not stage.healthy("web"), "the web to miss the broker")
    finally:
        stage.processes["broker"].signal(signal.SIGCONT)
    until(lambda: stage.healthy("broker") and stage.healthy("web"), "both to be well again")


def test_the_next_start_changes_no_key(stage: Rehearsal) -> None:
    files = ("sh", "-c", f"cd {STATE} && sha256sum keys/* web/* workers/*")
    before = stage.run("keys", *files).stdout
    assert stage.run("keys").stdout == "make-keys: all keys are there\n"
    assert stage.run("keys", *files).stdout == before
    assert len(before.splitlines()) == 8


def test_no_secret_is_open_to_others(stage: Rehearsal) -> None:
    modes = stage.run("keys", "sh", "-c", f"cd {STATE} && stat --format %a keys/* web/* workers/*").stdout.split()
    assert set(modes) == {"600"}


def test_a_person_gets_a_token_and_loses_it_with_the_next(stage: Rehearsal) -> None:
    first = stage.run("keys", "comfyui/containers/new-token", "ann").stdout.strip()
    until(lambda: stage.accepts(first), "the first token to be known")
    second = stage.run("keys", "comfyui/containers/new-token", "ann").stdout.strip()
    until(lambda: stage.accepts(second) and not stage.accepts(first), "the second to take its place")
    tokens = stage.run("keys", "cat", f"{STATE}/web/tokens").stdout
    assert first not in tokens
    assert second not in tokens


@pytest.mark.parametrize("arguments", [(), ("a b",), ("ann", "root"), ("-rf",), ("ann", "admin", "x"), ("a" * 65,)])
def test_a_bad_owner_is_refused(stage: Rehearsal, arguments: tuple[str, ...]) -> None:
    done = stage.run("keys", "comfyui/containers/new-token", *arguments)
    assert done.returncode == 1
    assert "want OWNER [admin]" in done.stderr


def test_a_key_for_another_machine_is_printed_whole(stage: Rehearsal) -> None:
    printed = stage.run("keys", "scripts/keys", "worker", "b-gpu0", "--host", "10.0.0.5").stdout
    assert "workers = tcp://10.0.0.5:5571" in printed
    assert "name = b-gpu0" in printed


class TestAnotherMachine:
    def test_it_does_not_start_without_its_key_and_says_where_to_get_it(self, tmp_path: Path) -> None:
        with rehearsal(tmp_path, "gpu0,gpu1") as stage:
            put = f"umask 077 && cat >{STATE}/workers/gpu0.ini"
            assert stage.run("keys", "sh", "-c", f"echo x | ({put})").returncode == 0
            done = stage.run("keys")
            assert done.returncode == 1
            assert done.stderr.startswith("make-keys: gpu1 has no key for the broker elsewhere: docs/deploy.md")
            assert stage.run("keys", "ls", f"{STATE}/keys").stdout == ""

    @pytest.mark.parametrize("profiles", ["gpu0,gpux", "head,gpu0 web"])
    def test_a_profile_that_is_none_is_named(self, tmp_path: Path, profiles: str) -> None:
        with rehearsal(tmp_path, profiles) as stage:
            done = stage.run("keys")
            assert done.returncode == 1
            assert "want head, gpu0, gpu1, …" in done.stderr
