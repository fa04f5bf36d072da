"""The compose file: valid by the published schema, nothing open that should be closed, and the same for each card."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.containers import compose
from tests.contract.containers.compose import CARDS, FILE, FOLDER, ROOT, VARIABLE

EVERYTHING = {"COMPOSE_PROFILES": ",".join(["head", *(f"gpu{card}" for card in CARDS)])}
#: They end, so they are not restarted and have no health.
ONCE = {"keys", "models"}
SERVICES = compose.load(EVERYTHING)["services"]


def schema_says(path: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("check-jsonschema")
    command = [str(tool), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_published_schema_accepts_it() -> None:
    done = schema_says(FILE)
    assert done.returncode == 0, done.stdout


def test_the_schema_would_refuse_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text("services: {web: {image: comfyfleet, restarts: always}}\n")
    done = schema_says(wrong)
    assert done.returncode == 1
    assert "restarts" in done.stdout


def test_without_an_env_file_it_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"COMPOSE_PROFILES: copy \.env\.example to \.env"):
        compose.load({})


def test_the_example_starts_one_machine_with_one_card() -> None:
    assert set(compose.services(compose.example())) == {"keys", "broker", "web", "models", "comfyui-0", "worker-0"}


def test_another_machine_runs_cards_alone() -> None:
    started = compose.services({"COMPOSE_PROFILES": "gpu0,gpu1"})
    assert set(started) == {"keys", "models", "comfyui-0", "worker-0", "comfyui-1", "worker-1"}


@pytest.mark.parametrize("profiles", ["head", "gpu3", "head,gpu0,gpu7"])
def test_what_a_service_waits_for_is_started_with_it(profiles: str) -> None:
    started = compose.services({"COMPOSE_PROFILES": profiles})
    for name, service in started.items():
        for other, wish in (service.get("depends_on") or {}).items():
            assert other in started or wish.get("required") is False, f"{name} waits for {other}"


def test_every_variable_is_in_the_example() -> None:
    used = {found["name"] for found in VARIABLE.finditer(FILE.read_text())}
    told = set(re.findall(r"^#?([A-Z_]+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE))
    assert used == told


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_kept_running_and_looked_after(name: str) -> None:
    service = SERVICES[name]
    if name in ONCE:
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service.get("healthcheck", {}).get("test") or name.startswith("comfyui-"), "no health check"
    assert "HEALTHCHECK" in (FOLDER / "containers" / "comfyui.Dockerfile").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_do_as_little_as_possible(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc", "devices", "user"} & service.keys()
    assert service.get("network_mode") in (None, "none")


def test_only_broker_and_web_are_published_and_only_on_loopback_until_told() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "broker": ["127.0.0.1:5571:5571", "127.0.0.1:5573:5573"],
        "web": ["127.0.0.1:8080:8080"],
    }
    opened = compose.load({**EVERYTHING, "BROKER_ADDRESS": "10.0.0.5", "WEB_PORT": "80"})["services"]
    assert opened["broker"]["ports"] == ["10.0.0.5:5571:5571", "10.0.0.5:5573:5573"]
    assert opened["web"]["ports"] == ["127.0.0.1:80:8080"]


def test_comfyui_is_on_a_network_that_leads_nowhere() -> None:
    assert compose.load(EVERYTHING)["networks"] == {"cards": {"internal": True}}
    there = {name for name, service in SERVICES.items() if "cards" in service.get("networks", [])}
    assert there == {f"{kind}-{card}" for kind in ("comfyui", "worker") for card in CARDS}
    assert all(SERVICES[f"comfyui-{card}"]["networks"] == ["cards"] for card in CARDS)


def test_secrets_are_where_they_are_needed_and_nowhere_else() -> None:
    seen: dict[str, set[str]] = {name: set() for name in ("keys", "web", "workers")}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, *rest = volume.split(":")
            if source in seen:
                seen[source].add(name)
                assert name == "keys" or rest[-1] == "ro", f"{name} may write {source}"
    workers = {f"worker-{card}" for card in CARDS}
    assert seen == {"keys": {"keys", "broker"}, "web": {"keys", "web"}, "workers": {"keys", *workers}}


def test_every_volume_is_named_and_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in used if not name.startswith("./")} == set(compose.load(EVERYTHING)["volumes"])
    assert {name for name in used if name.startswith("./")} == {"./containers/models.txt"}


@pytest.mark.parametrize("card", CARDS)
def test_each_card_is_served_like_the_first(card: int) -> None:
    for kind in ("comfyui", "worker"):
        service = json.dumps(SERVICES[f"{kind}-{card}"])
        same = service.replace(f"{kind}-{card}", f"{kind}-0").replace(f"comfyui-{card}", "comfyui-0")
        same = same.replace(f"gpu{card}", "gpu0").replace(f'"device_ids": ["{card}"]', '"device_ids": ["0"]')
        assert same == json.dumps(SERVICES[f"{kind}-0"])
        assert reserved(SERVICES[f"{kind}-{card}"])["device_ids"] == [str(card)]
    assert reserved(SERVICES[f"comfyui-{card}"])["capabilities"] == ["gpu"]
    assert reserved(SERVICES[f"worker-{card}"])["capabilities"] == ["gpu", "utility"]


def test_a_worker_ends_before_what_it_needs_to_end_well() -> None:
    # Compose stops in the opposite order of depends_on.
    assert SERVICES["worker-0"]["depends_on"].keys() == {"keys", "broker", "comfyui-0"}
    assert SERVICES["worker-0"]["stop_grace_period"] == "10m"


def test_the_version_of_the_image_is_that_of_the_package() -> None:
    version = re.search(r"^version = (\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert version is not None
    assert SERVICES["broker"]["image"] == f"comfyfleet:{version[1]}"


def reserved(service: dict[str, Any]) -> dict[str, Any]:
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert isinstance(device, dict)
    return device
