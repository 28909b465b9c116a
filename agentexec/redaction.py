"""Removal of secrets from texts that people read: logs, errors in the record, messages of commands.

Known secrets are removed wherever they stand: the values of environment variables named like a key, token, secret or
password, the passwords in variables that are URLs, and the secrets that the caller names. Others are removed by their
form: passwords in URLs, keys of well-known providers, bearer tokens, and values after names like `password=`. This is for
errors and log records, not for the data of tasks, and it cannot find a secret that looks like an ordinary word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

HIDDEN = "***"
MIN_SECRET_LENGTH = 6
"""Characters of the shortest known secret that is removed; shorter ones occur in too many words."""

MAX_TEXT_LENGTH = 200_000
"""Characters of the longest text; the end of a longer one is cut off."""

_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:KEYS?|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|PAT)$", re.IGNORECASE
)
_URL_VARIABLE = re.compile(r"(?:^|_)(?:URL|URI|DSN)$", re.IGNORECASE)

# The password ends at the last @ of the word, since it may contain one itself. A port and a path are not a password.
_PASSWORD = re.compile(
    r"""([a-z][a-z0-9+.\-]{0,30}://[^\s:/?#@"'<>]{0,200}):(?!\d{1,5}[/?#])([^\s"'<>]{1,500})@""",
    re.IGNORECASE,
)
_NAMES = (
    r"(?:[a-z0-9]{1,30}[_-]){0,5}"
    r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|apikey|access[_-]?key|private[_-]?key|signing[_-]?key)"
)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (_PASSWORD, rf"\1:{HIDDEN}@"),
    (re.compile(r"\b(sk|rk|pk)-[A-Za-z0-9_\-]{8,}"), rf"\1-{HIDDEN}"),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_|AIza)[A-Za-z0-9_\-]{16,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"), HIDDEN),
    (
        re.compile(
            r"""(\bauthorization["']?\s{0,5}[:=]\s{0,5}["']?(?:(?:bearer|basic|token)\s{1,5})?)[^\s"',;]+""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(bearer)\s{1,5}[A-Za-z0-9._~+/=\-]{16,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # JSON and Python's mappings: "api_key": "…".
    (
        re.compile(rf"""(["']{_NAMES}["']\s{{0,5}}:\s{{0,5}})(["'])(?:(?!\2).){{1,2000}}\2""", re.IGNORECASE),
        rf"\1\2{HIDDEN}\2",
    ),
    # Assignments and queries: password=…, ?token=….
    (re.compile(rf"""\b({_NAMES}\s?=\s?)(["']?)[^\s"'&,;)]{{1,2000}}\2""", re.IGNORECASE), rf"\1{HIDDEN}"),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without secrets. `secrets` are those that the caller knows besides the environment."""
    if len(text) > MAX_TEXT_LENGTH:
        text = text[:MAX_TEXT_LENGTH]
    # The longest first: a secret may be part of another.
    for secret in sorted({*secrets, *_known()}, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            text = text.replace(secret, HIDDEN)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def passwords(url: str) -> Iterator[str]:
    """Yield the password in a URL, as written there and unquoted."""
    found = _PASSWORD.search(url)
    if found is not None:
        yield found[2]
        yield unquote(found[2])


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            yield value
            # A variable may contain several keys.
            yield from value.split(",")
        elif _URL_VARIABLE.search(name):
            yield from passwords(value)
