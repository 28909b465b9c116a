"""Parsers of foreign text take any text: they answer, or say what is wrong, and nothing else happens."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentexec import config as settings_module
from agentexec.activity.live import encoding
from agentexec.activity.live.stream import stream
from agentexec.activity.queries import counts
from agentexec.activity.queries.labels import wanted_labels
from agentexec.activity.queries.listing import Place
from agentexec.activity.schemas import ActivityDetailSchema, valid_usage
from agentexec.arguments.variables import env_var_name, variable_texts
from agentexec.config import CONF, Settings
from agentexec.errors import AgentexecError, SettingsError, UsageError
from agentexec.llm.rate_limits import parse_rate_limits
from agentexec.state.backend import Event
from agentexec.state.messages import CANCEL, format_message, parse_messages
from agentexec.state.redis_backend.signing import Signer
from agentexec.task import new_agent_id, parse_agent_id
from agentexec.worker.channel import MAX_LINE_BYTES, MessageDecoder

settings.register_profile("garbage", derandomize=True, max_examples=60, deadline=None, database=None)
settings.load_profile("garbage")

texts = st.text(max_size=60)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
documents = texts | json_values.map(json.dumps)


@given(st.lists(st.binary(max_size=40), max_size=12))
@example([b'{"ready": true}\n', b"\xff\n[1]\n", b"[" * 3_000 + b"\n", b'"x"\nnull\n\n'])
def test_messages_between_processes(chunks: list[bytes]) -> None:
    lines = MessageDecoder()
    for chunk in chunks:
        assert all(isinstance(message, dict) for message in lines.feed(chunk))
    lines.feed(b"\n")
    assert lines.feed(b'{"ready": true}\n') == [{"ready": True}]


def test_a_line_without_an_end_is_forgotten() -> None:
    lines = MessageDecoder()
    for _ in range(5):
        lines.feed(b"x" * (MAX_LINE_BYTES // 2))
    assert len(lines._incomplete) <= MAX_LINE_BYTES


@pytest.mark.thorough
@given(st.integers(), documents)
@example(1, "[" * 3_000)
@example(1, '{"type": ["log"], "at": "1", "data": {}}')
def test_live_events(number: int, text: str) -> None:
    heard = encoding.parse_event(Event(number, text))
    assert heard.number == number
    assert heard.type is None or heard.type in encoding.LIVE_TYPES


@given(texts)
@example("cancel cancel ")
def test_messages_to_processes(text: str) -> None:
    agent_id = new_agent_id()
    assert parse_messages([text, f"cancel {text}", format_message(CANCEL, agent_id)], CANCEL)[-1] == agent_id


@given(texts)
@example("1.1\n")
@example(f"{'9' * 18}.{'9' * 18}")
@example(f"{'9' * 5000}.1")
@example("\N{FULLWIDTH DIGIT ONE}.\N{FULLWIDTH DIGIT TWO}")
def test_ids_of_events_from_clients(after: str) -> None:
    try:
        found = stream(new_agent_id(), after=after)
    except UsageError:
        return
    assert max(found._merger.line, found._merger.number) < 2**63


cursor_texts = texts | st.builds(
    lambda *parts: " ".join(parts),
    st.sampled_from(["0", "2", "-1", "9" * 5000]),
    st.sampled_from(["2024-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]),
    st.sampled_from([uuid.UUID(int=1).hex, "x"]),
)


@given(cursor_texts)
def test_cursors_from_clients(text: str) -> None:
    encoded = Place.cursor.__globals__["base64"].urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
    for cursor in (text, encoded):
        try:
            place = Place.parse(cursor)
        except UsageError:
            continue
        assert place.rank in (0, 1, 2)
        assert place.created_at.utcoffset() is not None


@given(st.one_of(texts, st.integers(), st.binary(max_size=20), st.none()))
def test_agent_ids(text: Any) -> None:
    try:
        assert parse_agent_id(text)
    except UsageError as error:
        assert "is not an agent_id" in str(error)


@given(st.dictionaries(texts, json_values, max_size=4))
@example({"a\x00b": "\ud800", "\ud800": 1.5})
@example({"n": 10**5000})
@example({"n": float("inf"), "m": float("nan")})
def test_metadata_filters(wanted: dict[str, Any]) -> None:
    try:
        for name, value in wanted_labels(wanted):
            assert "\x00" not in (name + value).encode().decode()
    except UsageError as error:
        assert "metadata_filter" in str(error)


@given(texts | st.from_regex(r"\A[a-z*]{1,3}=\d{1,30}(rpm|tpm)\Z"))
@example(f"m={'9' * 5000}rpm")
def test_rate_limits(text: str) -> None:
    try:
        limits = parse_rate_limits(text)
    except ValueError:
        return
    for model in limits.models:
        assert all(demand.full_refill_micros >= 0 for demand in limits.demands(model, 10))


@settings(max_examples=30)
@given(documents.filter(lambda text: "\x00" not in text))
@example('{"m": {"input": NaN, "output": 1}}')
@example('{"m": {"input": 1e999, "output": 1}}')
@example("hunter2")
@example("[" * 3_000)
def test_model_prices(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("AGENTEXEC_MODEL_PRICES", text)
        except UnicodeEncodeError:
            return
        try:
            prices = load_settings().model_prices
        except SettingsError as error:
            assert "AGENTEXEC_MODEL_PRICES cannot be used" in str(error)
            assert "hunter2" not in str(error)
            return
    assert all(price.input < float("inf") for price in prices.values())


def load_settings() -> Settings:
    return settings_module.load_settings()


@given(json_values)
@example({"gpt": {"requests": "many", "input_tokens": None, "output_tokens": True}})
@example({"gpt": [1]})
def test_usage_in_the_record(value: Any) -> None:
    for used in valid_usage(value).values():
        assert all(type(number) is int for number in used.values())
    assert ActivityDetailSchema._valid_usage(value) == valid_usage(value)


@given(documents)
@example('{"until": "2024-01-01", "numbers": []}')
@example('{"until": "2024-01-01T00:00:00+00:00", "numbers": [["t", "complete", "x"]]}')
def test_remembered_counts(text: str) -> None:
    known = counts._parse(text)
    assert known is None or known.until.tzinfo is not None


@given(texts, texts)
def test_signatures(text: str, forged: str) -> None:
    signer = Signer(["a key that is long enough", "an older one of the same"], "scope")
    older = Signer(["an older one of the same"], "scope")
    for writer in (signer, older):
        assert signer.unwrap("mail", "box", writer.wrap("mail", "box", text)) == text
    assert signer.unwrap("mail", "box", forged) is None
    assert signer.unwrap("mail", "other", signer.wrap("mail", "box", text)) is None
    assert older.unwrap("mail", "box", signer.wrap("mail", "box", text)) is None
    assert Signer([], "scope").unwrap("mail", "box", forged) == forged


def test_settings_made_in_code_reach_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONF, "signing_key", "a key that is long enough")
    monkeypatch.setattr(CONF, "model_prices", {"m": {"input": 1, "output": 2}})
    variables = {
        env_var_name(name): text for name, text in variable_texts(settings_module.explicit_settings()).items()
    }
    monkeypatch.setenv("AGENTEXEC_SIGNING_KEY", variables["AGENTEXEC_SIGNING_KEY"])
    monkeypatch.setenv("AGENTEXEC_MODEL_PRICES", variables["AGENTEXEC_MODEL_PRICES"])
    assert load_settings().signing_keys == ["a key that is long enough"]
    assert load_settings().model_prices == CONF.model_prices


def test_an_error_of_ours_is_one_of_ours() -> None:
    with pytest.raises(AgentexecError):
        stream("no id")
