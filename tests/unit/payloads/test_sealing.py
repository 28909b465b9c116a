"""Values in their stored form: encrypted with the first key, read with any."""

from __future__ import annotations

import base64
import json

import pytest

import agentexec as ax
from agentexec.arguments.encryption_keys import fingerprint
from agentexec.config import explicit_settings
from agentexec.errors import SettingsError
from agentexec.payloads.sealing import prefix_of, seal, unseal

OLD, NEW = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 254))
TEXTS = [
    '{"a": "ä"}',
    "",
    "null",
    "encrypted:0:",
    f"encrypted:1:{'0' * 16}:abc",
    "encrypted: yes",
    "\U0001f600" * 9,
]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ax.CONF, "encryption_keys", None)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("keys", [None, OLD, f"{NEW}, {OLD}"])
def test_a_value_comes_back_as_it_was(text: str, keys: str | None) -> None:
    ax.CONF.encryption_keys = keys
    stored = seal(text)
    assert unseal(stored) == text
    if keys is not None:
        assert stored.startswith(prefix_of(fingerprint(keys[: len(OLD)])))


def test_what_was_stored_without_keys_or_with_an_older_key_is_read() -> None:
    plain = seal('{"a": 1}')
    ax.CONF.encryption_keys = OLD
    old = seal('{"a": 2}')
    ax.CONF.encryption_keys = f"{NEW},{OLD}"
    assert (unseal(plain), unseal(old)) == ('{"a": 1}', '{"a": 2}')
    # A text of a release that knew no encryption.
    assert unseal("encrypted: my diary") == "encrypted: my diary"


@pytest.mark.parametrize("keys", [None, NEW])
def test_a_missing_key_is_named_by_its_fingerprint(keys: str | None) -> None:
    ax.CONF.encryption_keys = OLD
    stored = seal("1")
    ax.CONF.encryption_keys = keys
    with pytest.raises(ax.EncryptionKeyError, match=f"fingerprint is {fingerprint(OLD)}, which") as caught:
        unseal(stored)
    assert caught.value.fingerprint == fingerprint(OLD)
    assert OLD not in str(caught.value)


def test_a_damaged_value_is_an_error() -> None:
    ax.CONF.encryption_keys = OLD
    stored = seal("1")
    place = len(stored) // 2 + 9
    changed = stored[:place] + ("A" if stored[place] != "A" else "B") + stored[place + 1 :]
    with pytest.raises(ax.EncryptionKeyError, match=f"{fingerprint(OLD)} has encrypted is damaged"):
        unseal(changed)


@pytest.mark.parametrize("keys", ["short", OLD[:-2], f"{OLD},", f"{OLD};{NEW}", "ä" * 44])
def test_a_key_of_another_form_is_refused_without_being_shown(keys: str) -> None:
    with pytest.raises(
        SettingsError, match="AGENTEXEC_ENCRYPTION_KEYS cannot be used: each key must be 32"
    ) as caught:
        ax.CONF.encryption_keys = keys
    assert keys not in str(caught.value)


def test_keys_are_secrets_and_reach_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    ax.CONF.encryption_keys = f"{NEW},{OLD}"
    assert {NEW, OLD} <= set(ax.CONF.secrets)
    assert NEW not in repr(ax.CONF) + json.dumps(ax.CONF.model_dump(mode="json"))
    assert explicit_settings()["encryption_keys"] == f"{NEW},{OLD}"
