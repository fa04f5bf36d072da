"""Declaration, config.ini and docs/config.md say the same, and say it in full."""

from __future__ import annotations

from broker.core.placement import POLICIES
from broker.core.rules import Rules
from broker.protocol.files import MAX_CHUNK_BYTES
from broker.runtime import config, manual
from broker.runtime.settings import SECTIONS, SETTINGS, Broker, Placement, Security, Web
from broker.runtime.values import Choice

ROOT = config.DEFAULT_PATH.parent
MEND = "run: python -m broker.runtime.manual"


def test_config_ini_is_what_the_declaration_writes() -> None:
    assert (ROOT / "config.ini").read_text(encoding="utf-8") == manual.config_ini(), MEND


def test_docs_config_md_is_what_the_declaration_writes() -> None:
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == manual.config_md(), MEND


def test_the_shipped_file_gives_the_defaults() -> None:
    shipped = config.load(environ={})
    assert shipped.broker == Broker(data=ROOT / "data")
    assert shipped.security == Security(keys=ROOT / "keys")
    assert shipped.web == Web(templates=ROOT / "templates")
    for name in SECTIONS.keys() - {"broker", "security", "web"}:
        assert getattr(shipped, name) == SECTIONS[name]()


def test_the_shipped_file_gives_every_key() -> None:
    assert config.load(environ={}).given.keys() == SETTINGS.keys()


def test_every_setting_is_explained() -> None:
    assert not [s.name for s in SETTINGS.values() if not s.kind.wants or not s.help.endswith(".")]


def test_numbers_carry_their_unit_in_the_name() -> None:
    for setting in SETTINGS.values():
        kind = type(setting.kind).__name__
        assert setting.field.endswith("_ms") == (kind == "Duration"), setting.name
        assert setting.field.endswith("_bytes") == (kind == "Size"), setting.name


def test_no_chunk_is_larger_than_the_contract_allows() -> None:
    assert SETTINGS["files.chunk"].kind.parse("1 MiB") == MAX_CHUNK_BYTES


def test_the_core_decides_by_the_same_defaults() -> None:
    core, declared = Rules(), Broker()
    assert (core.heartbeat_ms, core.lease_ms, core.accept_ms) == (
        declared.heartbeat_ms,
        declared.lease_ms,
        declared.accept_ms,
    )
    assert (core.max_attempts, core.max_deaths) == (declared.attempts, declared.deaths)
    assert (core.backoff_base_ms, core.backoff_cap_ms) == (declared.backoff_ms, declared.backoff_max_ms)
    assert (core.max_queued, core.max_queued_per_owner) == (declared.max_queued, declared.max_queued_per_owner)
    assert (core.start_to_close_ms, core.stall_ms) == (declared.start_to_close_ms, declared.stall_ms)
    assert (core.policy, core.max_running_per_owner) == (Placement().policy, Placement().max_running_per_owner)


def test_every_policy_of_the_core_can_be_chosen_and_is_explained() -> None:
    policy = SETTINGS["placement.policy"]
    assert isinstance(policy.kind, Choice) and set(policy.kind.names) == POLICIES.keys()
    assert all(f"{name}: " in policy.help for name in POLICIES)
