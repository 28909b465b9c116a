"""Removal of secrets from texts that people read: logs, errors in the record, messages of commands.

Known secrets are removed wherever they stand: the values of environment variables named like a key, token, secret or
password, the passwords in variables that are URLs, and the secrets that the caller names. Others are removed by their
form: passwords in URLs, keys of well-known providers, private keys, bearer tokens, cookies, and values after names like
`password=` or `X-Api-Key:`. This is for errors and log records, not for the data of tasks, and it cannot find a secret that looks like an ordinary word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

HIDDEN = "***"
MIN_SECRET_LENGTH = 6
"""Characters of the shortest known secret that is removed; shorter ones occur in too many words."""

MAX_TEXT_LENGTH = 200_000
"""Characters of the longest text; the end of a longer one is cut off."""

_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:KEYS?|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|PAT)$", re.IGNORECASE
)
_FOLDER_VARIABLES = frozenset({"PWD", "OLDPWD"})
"""Variables of the shell that are named like passwords and hold its folders."""

_URL_VARIABLE = re.compile(r"(?:^|_)(?:URL|URI|DSN)$", re.IGNORECASE)

# The password ends at the last @ of the word, since it may contain one itself. A port and a path are not a password.
_PASSWORD = re.compile(
    r"""([a-z][a-z0-9+.\-]{0,30}://[^\s:/?#@"'<>]{0,200}):(?!\d{1,5}[/?#])([^\s"'<>]{1,500})@""",
    re.IGNORECASE,
)
# A URL that nobody quoted may contain anything up to its host. In texts, pages of the web and mail addresses are too
# common for that.
_ODD_PASSWORD = re.compile(
    r"""((?!(?:https?|wss?|file|ftp)://)\b[a-z][a-z0-9+.\-]{0,30}://[^\s:/?#@"'<>]{0,200})"""
    r""":(?!\d{1,5}(?:[/?#\s"'<>,;)]|$))(?!\*\*\*@)((?:(?!://)[^\n@]){1,200})@(?=[\w.\[\-])""",
    re.IGNORECASE,
)
_CLEAR_NAMES = (
    r"(?:password|passwd|passphrase|pwd|api[_-]?key|access[_-]?key|private[_-]?key|signing[_-]?key"
    r"|client[_-]?secret|(?:access|auth|refresh|api|id|bearer|session)[_-]?token)"
)
_NAMES = rf"(?:{_CLEAR_NAMES}|secret|token)"
_QUOTED = r"""(?:"(?:\\.|[^"\\]){1,2000}"|'(?:\\.|[^'\\]){1,2000}')"""
_PLAIN = r"""["']?[^\s"'&,;)]{1,2000}["']?"""
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN ([A-Z0-9 ]{0,30}PRIVATE KEY)-----[\s\S]*?(?:-----END \1-----|\Z)"), HIDDEN),
    (_PASSWORD, rf"\1:{HIDDEN}@"),
    (_ODD_PASSWORD, rf"\1:{HIDDEN}@"),
    (re.compile(r"\b(sk|rk|pk)-[A-Za-z0-9_\-]{8,}"), rf"\1-{HIDDEN}"),
    (re.compile(r"\b(sk|rk|pk)_(live|test)_[A-Za-z0-9]{8,}"), rf"\1_\2_{HIDDEN}"),
    (
        re.compile(
            r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|xapp-|hf_|npm_|pypi-|whsec_|AIza|ya29\.|SG\.)"
            r"[A-Za-z0-9._\-]{16,}"
        ),
        HIDDEN,
    ),
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
    (
        re.compile(r"""\b((?:set-)?cookie["']?:\s{0,5}["']?)[^\s"'][^\n"']{0,4000}""", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    # JSON and Python's mappings: "api_key": "…".
    (
        re.compile(
            rf"""({_NAMES}["']\s{{0,5}}:\s{{0,5}})(["'])(?:\\.|(?!\2)[^\\]){{1,2000}}\2""",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}\2",
    ),
    # Assignments and queries: password=…, ?token=….
    (re.compile(rf"({_NAMES}\s?=\s?)(?:{_QUOTED}|{_PLAIN})", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Headers and YAML: X-Api-Key: …. After a bare "token:" often comes a sentence, so its value must look like a token.
    (
        re.compile(rf"({_CLEAR_NAMES}\s?:\s{{0,5}})(?:{_QUOTED}|{_PLAIN})", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"((?:secret|token)\s?:\s{0,5})(?=[a-z._~+/=\-]{0,200}\d)[a-z0-9._~+/=\-]{8,2000}",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)


_SECRET_NAME = re.compile(
    r"password|passwd|passphrase|secret(?!ar)|credential"
    r"|(?:api|access|private|signing|encryption|master|service|account|auth|ssh|license)keys?$"
    r"|(?:(?:api|access|auth|refresh|bearer|session|security|csrf|id)tokens?|tokens?)(?:value|string)?$"
)
"""Names in lower case and without separators whose values are secrets. Counts like `token_count` do not match."""

_SECRET_WORDS = frozenset(
    {"pwd", "pat", "pin", "auth", "authorization", "bearer", "cookie", "cookies", "jwt", "otp"}
)
"""Last words of such names that are part of other words."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without secrets. `secrets` are those that the caller knows besides the environment."""
    return Redactor(secrets).redact(text[:MAX_TEXT_LENGTH])


def is_secret_name(name: str) -> bool:
    """Return whether a field with this name holds a secret: `password`, `X-Api-Key`, `accessToken`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:200]).lower()
    plain = re.sub(r"[^a-z0-9]", "", words)
    return bool(_SECRET_NAME.search(plain)) or any(
        word in _SECRET_WORDS for word in re.split(r"[^a-z0-9]+", words)[-1:]
    )


class Redactor:
    """Remover of secrets from many texts, which looks for the known ones once.

    Args:
        secrets: Secrets that the caller knows besides the environment.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in (*secrets, *_known()) if len(secret) >= MIN_SECRET_LENGTH}
        # The longest first: a secret may be part of another.
        self._known = sorted(known, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Return a text without secrets."""
        for secret in self._known:
            text = text.replace(secret, HIDDEN)
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
        return text


def passwords(url: str) -> Iterator[str]:
    """Yield the password in a URL, as written there and unquoted."""
    found = _PASSWORD.search(url) or _ODD_PASSWORD.search(url)
    if found is not None:
        yield found[2]
        yield unquote(found[2])


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            if name in _FOLDER_VARIABLES or _is_path(value):
                continue
            yield value
            # A variable may contain several keys.
            yield from value.split(",")
        elif _URL_VARIABLE.search(name):
            yield from passwords(value)


def _is_path(value: str) -> bool:
    """Return whether a variable names a file or folder that exists, as GOOGLE_APPLICATION_CREDENTIALS does."""
    return value.startswith(os.sep) and Path(value).exists()
