"""Secrets are removed from texts; similar texts stay."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import pytest

from agentexec.config import CONF, Settings
from agentexec.redaction import MAX_TEXT_LENGTH, is_secret_name, passwords, redact
from agentexec.worker.logs import RedactingFormatter
from tests.waiting import patient

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
    "password='not closed, at all\nnext": "password=***\nnext",
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
    # Passwords in URLs.
    "postgresql://u:123/hunter2x@h/db": "postgresql://u:***@h/db",
    "redis://:12345?x#y@h/0 and more": "redis://:***@h/0 and more",
    "mysql://u:1#hunter2x@h/db": "mysql://u:***@h/db",
    "https://user:pa ss@host/x": "https://user:***@host/x",
    "https://u:p<w@host/": "https://u:***@host/",
    "postgresql://u:" + "x" * 1_400 + "@h/db": "postgresql://u:***@h/db",
    "https://0123456789abcdef@sentry.example/1": "https://***@sentry.example/1",
    # Quotes that are not closed, and values that are not quoted.
    "connect(password=\"two words\nnext line isn't": "connect(password=***\nnext line isn't",
    "password='it's a secret', user='me'": "password=***, user='me'",
    "password='line one\nline two', n=1": "password=***, n=1",
    "password='" + "x y " * 900 + "'": "password=***",
    "password=abc,def;ghi": "password=***",
    "password=abc, user=me": "password=***, user=me",
    "Server=h;PWD=abc;Database=x": "Server=h;PWD=***;Database=x",
    "(password=ab)cd)": "(password=***)",
    "password=abc&def": "password=***",
    "password=abc&page=2": "password=***&page=2",
    "/x?password=abc&debug": "/x?password=***&debug",
    "passphrase: two words here\nnext": "passphrase: ***\nnext",
    "passphrase: one, two three": "passphrase: ***",
    "password: two words, then": "password: ***, then",
    "password: two words user: me": "password: *** user: me",
    '{"message": "password: hunter2x", "n": 1}': '{"message": "password: ***", "n": 1}',
    "a:\n  password: |\n    one\n\n    two\n  user: me": "a:\n  password: ***\n  user: me",
    "secret: >-\n  one\n  two\nuser: me": "secret: ***\nuser: me",
    "password:\n  hunter2x\nuser: me": "password:\n  ***\nuser: me",
    "secret: 'hunter2x'": "secret: '***'",
    "password: str = 'hunter2x'": "password: str = ***",
    "API key: hunter2x4u": "API key: ***",
    # JSON inside JSON, bytes, numbers, pairs.
    r"{\"password\": \"x\", \"n\": 1}": r"{\"password\": \"***\", \"n\": 1}",
    r"{\\\"password\\\": \\\"x y\\\"}": r"{\\\"password\\\": \\\"***\\\"}",
    r"{\"password\": \"a \\\" b\", \"n\": 1}": r"{\"password\": \"***\", \"n\": 1}",
    r"{\"password\": \"a b\\\\\", \"n\": 1}": r"{\"password\": \"***\", \"n\": 1}",
    '{"token": "x"}'.replace('"', "\\" * 63 + '"'): '{"token": "***"}'.replace('"', "\\" * 63 + '"'),
    "{b'password': b'x', b'n': 1}": "{b'password': b'***', b'n': 1}",
    "[(b'authorization', b'Bearer a b'), (b'x', b'y')]": "[(b'authorization', b'***'), (b'x', b'y')]",
    "[('X-Api-Key', 'x')]": "[('X-Api-Key', '***')]",
    "{b'Authorization': b'Basic eDp5'}": "{b'Authorization': b'Basic ***'}",
    "{'HTTP_AUTHORIZATION': 'Basic eDp5', 'HTTP_COOKIE': 'x'}": "{'HTTP_AUTHORIZATION': 'Basic ***', 'HTTP_COOKIE': '***'}",
    r"{\"authorization\": \"Bearer x\"}": r"{\"authorization\": \"Bearer ***\"}",
    "{'password': 5544332211}": "{'password': ***}",
    "{'password': ['x'], 'token': SecretStr('x')}": "{'password': [***], 'token': SecretStr('***')}",
    "{'pass': 'x', \"pw\": \"x\"}": "{'pass': '***', \"pw\": \"***\"}",
    'Authorization: Digest username="me", response="x"\nHost: x': "Authorization: ***\nHost: x",
    "<db:password>x y</db:password>": "<db:password>***</db:password>",
    '{"passwords": ["a]b", "c"], "n": [1]}': '{"passwords": [***], "n": [1]}',
    "password => 'x y'": "password => ***",
    "https://h/cb?access_token=abc#frag": "https://h/cb?access_token=***#frag",
    # Commands.
    "['x', '--password=two words', '-v']": "['x', '--password=***', '-v']",
    "mysql --password hunter2x -v": "mysql --password *** -v",
    "mysql --password=hunter2x -v": "mysql --password=*** -v",
    "tool --db-pass 'two words' x": "tool --db-pass *** x",
    "Command '['x', '--api-key', 'y z', '-v']' returned 1": "Command '['x', '--api-key', '***', '-v']' returned 1",
    "pass=hunter2x passwd=x db_pass=x pw=x": "pass=*** passwd=*** db_pass=*** pw=***",
    "OPENAI_API_KEY_2=x": "OPENAI_API_KEY_2=***",
    # Azure and PGP.
    "AccountName=a;AccountKey=ab+/c==;EndpointSuffix=x": "AccountName=a;AccountKey=***;EndpointSuffix=x",
    "SharedAccessSignature=sv=1&sig=x;A=b": "SharedAccessSignature=***;A=b",
    "https://a/b?sv=1&sig=x%2Fy&se=2": "https://a/b?sv=1&sig=***&se=2",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n-----END PGP PRIVATE KEY BLOCK----- x": "*** x",
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
    "http://h:8080/a@b",
    "https://[::1]:8080 and redis://[::1]:6379/0 refused; write to me@example.com",
    "https://host:443: refused; write to me@example.com",
    "https://deploy@git.example/x and postgresql://application_user_1@db/app",
    "token count: 5, tokens=5, token_count=5",
    "passing=3 bypass=on compass=x: 5 pass, 2 fail; pass=12 fail=0 pass=true",
    "{'pass': 5, 'fail': 2, 'token': 12, 'token_count': 123456789}",
    "key=value cache_key=users:1 ?key=5 sort_key=name monkey=x",
    "if password == other:",
    "def connect(user: str, password: str, token: str | None = None)",
    "argument --password: expected one argument",
    "the option --password is missing; [--token TOKEN] --password, --user",
    "PASSWORD=\nUSER=me",
    "PWD=/srv/app OLDPWD=/srv",
    "fields: ('body', 'password'), ['user', 'password', 'email']",
    "Enter the password:\nit is long",
    "-----BEGIN PGP PUBLIC KEY BLOCK-----",
    "{'password': None, 'secret': True, 'has_password': True, 'password': ''}",
    "password: field required",
    "http://host:port/path me@example.com",
    "the config sig=9 and signature: x",
    r"C:\temp\new and \"quoted\" words",
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


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        *((name, "plain-words", ["plain-words"]) for name in (
            "PGPASSWORD", "SSHPASS", "APIKEY", "DB_PASS", "REDIS_AUTH", "OPENAI_API_KEY_2", "API_KEY2", "MYSQL_PWD", "ACCESS_TOKENS",
            "STRIPE_KEY_LIVE", "SECRET_KEY_BASE", "github_token",
        )),
        ("DATABASE_URL", "postgresql://u:123/hunter2x@h/db", ["123/hunter2x"]),
        ("DATABASE_URL", "postgresql://u:hunter2x@h/db?x=a@b", ["hunter2x"]),
        ("HTTPS_PROXY", "http://u:hunter2x@h:3128", ["hunter2x"]),
        ("BROKERS", "amqp://u:hunter2x@a,amqp://u:hunter3x@b", ["hunter2x", "hunter3x"]),
        ("PG_DSN", "host=h password=hunter2x user=u", ["hunter2x"]),
        ("STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=ab+/cdef==;X=y", ["ab+/cdef=="]),
        ("SENTRY_DSN", "https://plainkey@sentry.example/1", ["plainkey"]),
        ("API_KEYS", "firstkey, secondkey", ["firstkey", "secondkey"]),
        ("API_KEYS", "firstkey secondkey;thirdkey", ["firstkey", "secondkey", "thirdkey"]),
        ("API_KEYS", '["firstkey", "secondkey"]', ["firstkey", "secondkey"]),
        ("MY_SECRET", "line-one\nline-two\nx", ["line-one", "line-two"]),
        ("MY_KEY", r"-----BEGIN X-----\nline-one\nline-two\n-----END X-----", ["line-one", "line-two"]),
        ("LONG_KEY", "/" + "x" * 5_000, ["/" + "x" * 5_000]),
    ],
)  # fmt: skip
def test_a_variable_holds_secrets(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, hidden: list[str]
) -> None:
    monkeypatch.setenv(name, value)
    for secret in hidden:
        assert redact(f"a {secret} b") == "a *** b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMPASS", "north-east"), ("NO_PROXY_BYPASS", "localhost"), ("MAX_TOKENS", "100000"), ("REQUIRE_AUTH", "disabled"),
        ("MONKEY", "baboon-1"), ("SSH_AUTH_SOCK", "north-east"), ("AUTHOR", "north-east"), ("TOKENIZERS_PARALLELISM", "north-east"),
        ("MY_URL", "http://north:8080/a@b"), ("PG_URL", "postgresql://application@north-east/db"), ("SECRET", "connection refused-1234"),
    ],
)  # fmt: skip
def test_a_similar_variable_holds_no_secrets(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    text = "north-east localhost 100000 disabled baboon-1 8080/a application connection"
    assert redact(text) == text


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


def test_a_long_text_is_cut() -> None:
    assert len(redact("--password " * MAX_TEXT_LENGTH)) <= MAX_TEXT_LENGTH


@pytest.mark.thorough
def test_redaction_takes_time_linear_in_the_text() -> None:
    """An eighth of the longest text takes a twentieth of a second; with a quadratic pattern it took many."""
    length = MAX_TEXT_LENGTH // 8
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
        "https://a1",
        "https://abcdefgh:",
        "password='x\n",
        "password='x\n y\\'",
        "password=\"x' \n",
        "password='x y\\'",
        "password=a&",
        "('password', '" + "\\",
        "\\",
        '"password": "' + "\\" * 40,
        "'password'" + "\\" * 200,
        "\n  password: |\n     a",
        "--password ",
        "'--token', '",
        "'token': ['",
        "'token': ['a']x",
        "https://b:c/",
        "&a",
        "authorization: digest ",
    ):
        text, began = unit * (length // len(unit) + 1), time.process_time()
        redact(text)
        assert time.process_time() - began < patient(2), unit


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
    text = RedactingFormatter(CONF, "%(message)s").format(record)
    assert SECRET not in text and "sk-0123456789" not in text
    assert "Traceback" in text and "cannot open redis://:***@host/0" in text


def test_a_log_record_cannot_rewrite_or_reorder_the_terminal() -> None:
    record = logging.LogRecord(
        "agentexec", logging.ERROR, "", 1, "a\x1b[2J\x9b\u202e\u2066\u2028b\tc\nd", (), None
    )
    assert (
        RedactingFormatter(CONF, "%(message)s").format(record) == "a\ufffd[2J\ufffd\ufffd\ufffd\ufffdb\tc\nd"
    )


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
    assert "hid/den" in passwords("redis+sentinel://host/main?sentinel_password=hid%2Fden&protocol=2")


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
        "awsCredential", "pin", "otp", "jwt", "pw", "pass", "db_pass", "userPass", "DB_PW", "password2", "api_key_2", "passcode",
    ],
)  # fmt: skip
def test_a_field_with_a_secrets_name_holds_a_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "key", "keys", "primary_key", "idempotency_key", "monkey", "token_count", "tokenizer", "secretary", "author",
        "authors", "pattern", "pinned", "path", "compass", "passenger", "hotpot", "spin", "cookie_policy", "company", "passed", "passing", "key_2",
    ],
)  # fmt: skip
def test_a_field_with_a_similar_name_is_shown(name: str) -> None:
    assert not is_secret_name(name)
