"""Read tokens: what they permit, when they end, and what is not one."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

import agentexec as ax
from agentexec.config import CONF
from agentexec.web import tokens
from agentexec.web.caller import Caller

OLD, NEW = "the key of last year", "the key of this year"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONF, "read_token_key", NEW)


def signed(claims: Any, key: str = NEW) -> str:
    payload = tokens._encode(json.dumps(claims).encode())
    return f"axr1.{payload}.{tokens._encode(tokens._sign(key, payload))}"


def test_a_token_permits_to_read_one_task_or_those_with_some_metadata() -> None:
    task, organization = uuid4(), uuid4()
    caller = tokens.caller_of(ax.web.read_token(task=task, expires_in=60))
    assert (caller.agent_id, caller.metadata_filter, caller.rights) == (task, None, ["read"])
    assert caller.expires_at is not None
    assert 55 < caller.expires_at.timestamp() - time.time() <= 61
    labels = {"organization": organization, "plan": 3, "text": "ü.="}
    caller = tokens.caller_of(ax.web.read_token(metadata_filter=labels, expires_in=timedelta(hours=24)))
    assert caller.metadata_filter == {**labels, "organization": str(organization)}
    assert caller.agent_id is None
    assert not caller.act


def test_an_expired_token_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    token = ax.web.read_token(task=uuid4(), expires_in=1)
    now = time.time()
    monkeypatch.setattr(tokens.time, "time", lambda: now + 2.1)
    with pytest.raises(ax.TokenInvalidError, match="has expired"):
        tokens.caller_of(token)


def test_keys_are_changed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONF, "read_token_key", OLD)
    token = ax.web.read_token(task=uuid4())
    monkeypatch.setattr(CONF, "read_token_key", f"{NEW}, {OLD}")
    assert tokens.caller_of(token).agent_id
    assert ax.web.read_token(task=UUID(int=1)).partition(".")[0] == "axr1"
    monkeypatch.setattr(CONF, "read_token_key", NEW)
    with pytest.raises(ax.TokenInvalidError, match="not valid"):
        tokens.caller_of(token)


FUTURE = 4_000_000_000
FORGED = {
    "empty": "",
    "prefix": "axr1.",
    "words": "axr1.a.b",
    "unsigned": "axr1." + base64.urlsafe_b64encode(b'{"e":4000000000}').decode() + ".",
    "other key": signed({"e": FUTURE, "m": {"tenant": "a"}}, OLD),
    "no scope": signed({"e": FUTURE}),
    "empty scope": signed({"e": FUTURE, "m": {}}),
    "null scope": signed({"e": FUTURE, "m": None}),
    "no end": signed({"m": {"tenant": "a"}}),
    "odd end": signed({"e": "soon", "m": {"tenant": "a"}}),
    "endless": signed({"e": 10**300, "m": {"tenant": "a"}}),
    "list": signed([1, 2]),
    "text": signed("e"),
    "odd task": signed({"e": FUTURE, "t": "x"}),
    "odd labels": signed({"e": FUTURE, "m": {"tenant": ["a"]}}),
    "oversized": signed({"e": FUTURE, "m": {"tenant": "a" * 5_000}}),
    "not ascii": "axr1.é.é",
    "other version": signed({"e": FUTURE, "m": {"tenant": "a"}}).replace("axr1", "axr2"),
    "no version": signed({"e": FUTURE, "m": {"tenant": "a"}}).removeprefix("axr1."),
    "nul": "axr1.\x00.\x00",
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_no_token_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(ax.TokenInvalidError, match=r"The read token is not valid; get a new one"):
        tokens.caller_of(FORGED[name])


def test_every_changed_character_is_noticed() -> None:
    token = ax.web.read_token(metadata_filter={"tenant": "a"})
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(ax.TokenInvalidError):
            tokens.caller_of(changed)


def test_without_a_key_there_are_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    token = ax.web.read_token(task=uuid4())
    monkeypatch.setattr(CONF, "read_token_key", None)
    with pytest.raises(ax.SettingsError, match="AGENTEXEC_READ_TOKEN_KEY"):
        ax.web.read_token(task=uuid4())
    with pytest.raises(ax.TokenInvalidError, match="accepts no read tokens"):
        tokens.caller_of(token)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "either task= or metadata_filter="),
        ({"task": uuid4(), "metadata_filter": {"tenant": "a"}}, "either task= or metadata_filter="),
        ({"task": "nonsense"}, "not an agent_id"),
        ({"metadata_filter": {}}, "every tenant"),
        ({"metadata_filter": {"tenant": None}}, "string, number or boolean"),
        ({"metadata_filter": {"tenant": "a" * 5_000}}, "too large for a read token"),
        ({"task": uuid4(), "expires_in": 86_401}, "at most 86400 seconds"),
        ({"task": uuid4(), "expires_in": 0}, "expires_in="),
        ({"task": uuid4(), "expires_in": float("nan")}, "expires_in="),
    ],
)
def test_a_token_that_permits_too_much_is_not_made(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ax.UsageError, match=sentence):
        ax.web.read_token(**given)


def test_the_key_is_a_secret() -> None:
    assert NEW in CONF.secrets
    assert NEW not in repr(CONF)


@pytest.mark.parametrize(
    "given",
    [{"metadata_filter": {}}, {"metadata_filter": {"a": None}}, {"name": ""}, {"act": 1}, {"name": 3}],
)
def test_a_caller_that_would_see_too_much_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ax.UsageError):
        Caller(**given)
