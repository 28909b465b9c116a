"""Secrets taken out of texts that go to people: logs, errors in the record, messages of commands.

What is known to be secret goes wherever it stands: the values of environment variables that are called a key, token, secret
or password, the passwords in those that are URLs, and what the caller names. The rest goes by its form: passwords in
URLs, keys of well-known makers, bearer tokens, and values behind names like `password=`. It is for errors and log records,
not for the data of tasks, and no promise for a secret that looks like any other word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6
"""Characters of a known secret; shorter ones stand in too many words."""

MAX_TEXT_LENGTH = 200_000
"""Characters that are looked at; of a longer text the end is cut."""

_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:KEYS?|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|PAT)$", re.IGNORECASE
)
_URL_VARIABLE = re.compile(r"(?:^|_)(?:URL|URI|DSN)$", re.IGNORECASE)

# The password ends at the last @ of the word, as it may hold one itself; what looks like a port and a path is none.
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
    """A text without secrets. `secrets`: what the caller knows besides the environment."""
    if len(text) > MAX_TEXT_LENGTH:
        text = text[:MAX_TEXT_LENGTH]
    # The longest first: one may be a part of another.
    for secret in sorted({*secrets, *_known()}, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def passwords(url: str) -> Iterator[str]:
    """The password in a URL, as it is written there and as it is meant."""
    found = _PASSWORD.search(url)
    if found is not None:
        yield found[2]
        yield unquote(found[2])


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            yield value
            # Several keys in one variable.
            yield from value.split(",")
        elif _URL_VARIABLE.search(name):
            yield from passwords(value)
