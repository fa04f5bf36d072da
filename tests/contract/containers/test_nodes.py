"""provisioning.sh nodes: one commit, into ComfyUI's own environment, whole or not at all."""

from __future__ import annotations

import pytest

from tests.contract.containers.conftest import Provisioning


def test_the_commit_is_installed_with_its_packages(provisioning: Provisioning) -> None:
    provisioning.publish("raise SystemExit('a later commit')\n")
    provisioning.succeeds("nodes")
    assert (provisioning.nodes / "__init__.py").read_text() == "NODE_CLASS_MAPPINGS = {}\n"
    listing, install = provisioning.asked_of_pip()
    assert listing == "list --format freeze"
    assert install.startswith("install ")
    assert install.endswith(f"--requirement {provisioning.needs}")


def test_what_comfyui_runs_on_may_not_change(provisioning: Provisioning) -> None:
    provisioning.succeeds("nodes")
    assert provisioning.pip.with_name("pip.constraint").read_text() == "torch==2.8.0\n"


def test_a_second_run_does_nothing(provisioning: Provisioning) -> None:
    provisioning.succeeds("nodes")
    asked = provisioning.asked_of_pip()
    provisioning.repository.rename(provisioning.repository.with_name("gone"))
    assert "StoryDiffusion is there" in provisioning.succeeds("nodes", COMFYUI_VENV_PIP="")
    assert provisioning.asked_of_pip() == asked


def test_another_commit_takes_its_place(provisioning: Provisioning) -> None:
    provisioning.succeeds("nodes")
    (provisioning.nodes / "old.py").touch()
    second = provisioning.publish("NODE_CLASS_MAPPINGS = {'A': None}\n")
    provisioning.succeeds("nodes", STORYDIFFUSION_COMMIT=second)
    assert "'A'" in (provisioning.nodes / "__init__.py").read_text()
    assert not (provisioning.nodes / "old.py").exists()


def test_other_packages_are_installed_anew(provisioning: Provisioning) -> None:
    provisioning.succeeds("nodes")
    provisioning.needs.write_text("diffusers==0.35.2\n")
    provisioning.succeeds("nodes")
    assert len(provisioning.asked_of_pip()) == 4


def test_packages_that_do_not_fit_leave_nothing(provisioning: Provisioning) -> None:
    provisioning.pip.with_name("pip.broken").touch()
    assert "do not go with what ComfyUI runs on" in provisioning.fails("nodes")
    assert [path.name for path in provisioning.home.iterdir()] == ["custom_nodes"]
    assert list((provisioning.home / "custom_nodes").iterdir()) == []
    provisioning.pip.with_name("pip.broken").unlink()
    provisioning.succeeds("nodes")


def test_a_commit_that_fails_leaves_the_one_before(provisioning: Provisioning) -> None:
    provisioning.succeeds("nodes")
    missing = "1" * 40
    line = provisioning.fails("nodes", STORYDIFFUSION_COMMIT=missing)
    assert line == f"{provisioning.repository}: commit {missing} cannot be had from there"
    assert (provisioning.nodes / "__init__.py").exists()
    assert [path.name for path in provisioning.home.iterdir()] == ["custom_nodes"]


@pytest.mark.parametrize("commit", ["main", "e4e0acd", "v2.0.0", "E" * 40])
def test_only_a_whole_commit_is_a_pin(provisioning: Provisioning, commit: str) -> None:
    assert "want the 40 digits of a commit" in provisioning.fails("nodes", STORYDIFFUSION_COMMIT=commit)


@pytest.mark.parametrize("pip", ["", "pip", "/nowhere/pip"])
def test_the_pip_is_never_guessed(provisioning: Provisioning, pip: str) -> None:
    assert "want the pip of ComfyUI's own environment" in provisioning.fails("nodes", COMFYUI_VENV_PIP=pip)


def test_a_folder_that_is_no_comfyui_is_named(provisioning: Provisioning) -> None:
    assert "no ComfyUI there" in provisioning.fails("nodes", COMFYUI_HOME=str(provisioning.table.parent))


def test_without_a_word_it_does_both(provisioning: Provisioning) -> None:
    said = provisioning.succeeds()
    assert "StoryDiffusion is installed" in said
    assert "all models are there" in said


def test_an_unknown_word_is_refused(provisioning: Provisioning) -> None:
    assert provisioning.fails("model") == "model: want nodes, models or nothing"
