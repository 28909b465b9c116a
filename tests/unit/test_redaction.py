"""Secrets are removed from texts; similar texts stay."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from agentexec.config import CONF, Settings
from agentexec.redaction import MAX_TEXT_LENGTH, is_secret_name, passwords, redact
from agentexec.worker.logs import RedactingFormatter

SECRET = "hunter2hunter2"

SHOWN = {
    f"postgresql+psycopg://app:{SECRET}@db.example/app": "postgresql+psycopg://app:***@db.example/app",
    f"redis://:{SECRET}@localhost:6379/0": "redis://:***@localhost:6379/0",
    f"redis://u:{SECRET}/with@both@localhost/0": "redis://u:***@localhost/0",
    "Incorrect API key provided: sk-proj-abcDEF123_456-x.": "Incorrect API key provided: sk-***.",
    f"Authorization: Bearer {SECRET}": "Authorization: Bearer ***",
    f"{{'authorization': 'Basic {SECRET}'}}": "{'authorization': 'Basic ***'}",
    f"got bearer {SECRET}abc, which": "got bearer ***, which",
    f"connect(password='{SECRET}', user='me')": "connect(password=***, user='me')",
    f'{{"api_key": "{SECRET}", "n": 1}}': '{"api_key": "***", "n": 1}',
    f"https://host/path?token={SECRET}&page=2": "https://host/path?token=***&page=2",
    f"AWS_SECRET_ACCESS_KEY={SECRET}": "AWS_SECRET_ACCESS_KEY=***",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789": "***",
    "key AKIAABCDEFGHIJKLMNOP of": "key *** of",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl": "***",
    f'postgresql://app:{SECRET}<>"x@db.example/app': "postgresql://app:***@db.example/app",
    f"mysql+pymysql://app:two words {SECRET}@db/app": "mysql+pymysql://app:***@db/app",
    f"connect(password='two words {SECRET}', user='me')": "connect(password=***, user='me')",
    rf"password='it\'s {SECRET}' or not": "password=*** or not",
    rf'{{"password": "a \" b {SECRET}", "n": 1}}': '{"password": "***", "n": 1}',
    f"password='not closed {SECRET[:0]}": "password=*** closed ",
    f"password: {SECRET}": "password: ***",
    f"DB_PASSWORD : '{SECRET} two'": "DB_PASSWORD : ***",
    f"X-Api-Key: {SECRET}": "X-Api-Key: ***",
    f"{{'x-api-key': '{SECRET}'}}": "{'x-api-key': '***'}",
    f"apiKey={SECRET}; accessToken: {SECRET}": "apiKey=***; accessToken: ***",
    f"clientSecret={SECRET}": "clientSecret=***",
    f"token: {SECRET}": "token: ***",
    "sk_live_0123456789abcdef": "sk_live_***",
    "whsec_0123456789abcdefgh": "***",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY----- after": "*** after",
    "-----BEGIN PRIVATE KEY-----\nMIIEow cut off": "***",
    f"Set-Cookie: session={SECRET}; Path=/\nHost: x": "Set-Cookie: ***\nHost: x",
}

UNCHANGED = [
    "https://example.com:8443/users/@ann and more",
    "postgresql://app@db.example/app",
    "used 500 tokens; max_tokens=100, total_tokens: 600",
    "Invalid token: expected ')' at line 3",
    "the bearer of this letter",
    "a risk-free task-list",
    "lines 10:20 of file.py",
    "password must not be empty",
    '{"key": "value", "keys": ["a"]}',
    "http://localhost:8000 answered; write to me@example.com",
    "see redis://localhost:6379, or ask me@example.com",
    "task-token: expected a name",
    "-----BEGIN CERTIFICATE-----",
    "passwords: three of them",
]


@pytest.mark.parametrize(("text", "shown"), SHOWN.items())
def test_a_secret_is_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("text", UNCHANGED)
def test_a_text_without_a_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_known_secrets_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_MAIL_TOKEN", "plain-words-here")
    monkeypatch.setenv("BILLING_URL", "amqp://me:swordfish%2F1@host/vhost")
    monkeypatch.setenv("SHORT_KEY", "on")
    text = "plain-words-here, swordfish%2F1, swordfish/1, and named; on it goes"
    assert redact(text, ["named"]) == "***, ***, ***, and named; on it goes"
    assert redact(text, ["and named"]) == "***, ***, ***, ***; on it goes"


def test_the_working_folder_and_paths_are_not_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = tmp_path / "google.json"
    credentials.touch()
    monkeypatch.setenv("PWD", "/srv/my-project")
    monkeypatch.setenv("OLDPWD", "/srv/another")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    monkeypatch.setenv("DB_PWD", "/not/a/path/but/a/secret")
    text = f"/srv/my-project/worker.py /srv/another {credentials} /not/a/path/but/a/secret"
    assert redact(text) == f"/srv/my-project/worker.py /srv/another {credentials} ***"


@pytest.mark.thorough
def test_a_long_text_is_cut_and_redacted_quickly() -> None:
    for unit in (
        "password=",
        "a://b:",
        "sk-",
        "eyJ",
        "'token':",
        "x-",
        " ",
        "authorization ",
        "a://b:c d",
        "password: '",
        "cookie:",
        "-----BEGIN PRIVATE KEY-----",
    ):
        assert len(redact(unit * (MAX_TEXT_LENGTH // len(unit) + 10))) <= MAX_TEXT_LENGTH


def test_a_log_record_and_its_traceback_are_redacted() -> None:
    try:
        raise ValueError(f"cannot open redis://:{SECRET}@host/0")
    except ValueError as error:
        record = logging.LogRecord(
            "agentexec",
            logging.ERROR,
            "",
            1,
            "%s",
            ("sk-0123456789",),
            (ValueError, error, error.__traceback__),
        )
    text = RedactingFormatter("%(message)s").format(record)
    assert SECRET not in text and "sk-0123456789" not in text
    assert "Traceback" in text and "cannot open redis://:***@host/0" in text


def test_a_log_record_cannot_rewrite_or_reorder_the_terminal() -> None:
    record = logging.LogRecord(
        "agentexec", logging.ERROR, "", 1, "a\x1b[2J\x9b\u202e\u2066\u2028b\tc\nd", (), None
    )
    assert RedactingFormatter("%(message)s").format(record) == "a\ufffd[2J\ufffd\ufffd\ufffd\ufffdb\tc\nd"


def test_the_settings_know_their_secrets() -> None:
    settings = Settings(
        redis_url="redis://:swordfish@host/0",
        database_url="mysql://u:open%20sesame@host/db",
        signing_key="first key of many,the second key too",  # type: ignore[arg-type]
    )
    assert settings.secrets == [
        "first key of many",
        "the second key too",
        "swordfish",
        "swordfish",
        "open%20sesame",
        "open sesame",
    ]
    assert "first key" not in repr(settings)
    assert list(passwords("sqlite:///file.db")) == []
    assert "two words" in passwords("redis://:two words@host/0")


@pytest.mark.parametrize("key", ["short", "long enough for a key,short", ","])
def test_a_short_signing_key_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(Exception, match="AGENTEXEC_SIGNING_KEY cannot be used: each key needs 16") as caught:
        CONF.signing_key = key  # type: ignore[assignment]
    assert "short" not in str(caught.value)


def test_every_silenced_security_rule_has_its_reason() -> None:
    """Ruff's S rules come from bandit; each place that silences a rule gives its reason."""
    root = Path(__file__).parents[2]
    for folder in ("agentexec", "migrations"):
        for file in (root / folder).rglob("*.py"):
            for number, line in enumerate(file.read_text().splitlines(), 1):
                if re.search(r"noqa:.*\bS\d", line):
                    assert re.search(r"\bS\d+( |, )*- \w", line), (
                        f"{file}:{number} silences a rule without a reason"
                    )


@pytest.mark.parametrize(
    "name",
    [
        "password", "DB_PASSWORD", "newPasswordConfirm", "passwd", "pwd", "user-pwd", "passphrase", "secret", "clientSecret",
        "secret_key", "token", "accessToken", "refresh_token", "api_tokens", "csrfToken", "api_key", "apiKey", "X-Api-Key",
        "OPENAI_API_KEY", "private key", "ssh_key", "Authorization", "auth", "Set-Cookie", "cookies", "credentials",
        "awsCredential", "pin", "otp", "jwt",
    ],
)  # fmt: skip
def test_a_field_with_a_secrets_name_holds_a_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "key", "keys", "primary_key", "idempotency_key", "monkey", "token_count", "tokenizer", "secretary", "author",
        "authors", "pattern", "pinned", "path", "compass", "passenger", "hotpot", "spin", "cookie_policy", "company",
    ],
)  # fmt: skip
def test_a_field_with_a_similar_name_is_shown(name: str) -> None:
    assert not is_secret_name(name)
