"""Removal of secrets from texts that people read: logs, errors in the record, messages of commands.

Known secrets are removed wherever they stand: the values of environment variables named like a key, token, secret or
password, with their lines and the elements of lists, the passwords in variables that are URLs, and the secrets that the
caller names. Others are removed by their form: passwords in URLs, keys of well-known providers, private keys, bearer
tokens, cookies, and values after names like `password=`, `--password` or `X-Api-Key:`. Each pattern takes time linear in
the text: repetitions are bounded, or consume what they have read. This is for errors and log records, not for the data of tasks, and it cannot find a secret that looks like an ordinary word.
"""

from __future__ import annotations

import functools
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
    r"(?:PASSWORDS?|PASSWD|PASSPHRASES?|PASSCODE|(?<!COM)(?<!BY)PASS|SECRETS?|TOKENS?|CREDENTIALS?|API_?KEYS?|ACCESSKEY"
    r"|(?:^|_)(?:KEYS?|PWD|PW|PAT|AUTH|JWT|COOKIE))"
    r"(?:_?(?:\d{1,3}|OLD|NEW|PREVIOUS|PRIMARY|SECONDARY|PROD|PRODUCTION|LIVE|STAGING|TEST|DEV|BACKUP|BASE|BASE64|B64))?$",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"S(?:_?\d{1,3})?$", re.IGNORECASE)
_FOLDER_VARIABLES = frozenset({"PWD", "OLDPWD"})
"""Variables of the shell that are named like passwords and hold its folders."""

_ORDINARY_VALUES = frozenset(
    {"enabled", "disabled", "required", "optional", "default", "digest", "bearer", "oauth2"}
)
"""Values of variables like REQUIRE_AUTH that are no secrets."""

_MIN_PART_LENGTH = 8
"""Characters of the shortest line or word of a known secret that is removed."""

_BRACKETS = " \"'[](){}"
_WEB = "(?:https?|wss?|file|ftp)://"
_PORT = r"""\d{1,5}(?:[/?#\s"'<>,;:.)\]]|$)"""
_USER = r"""[^\s:/?#@"'<>\[]{0,200}"""
_SCHEME = r"[a-z][a-z0-9+.\-]{0,30}://"


class LatePattern:
    """Regular expression that is compiled on its first use: all of them take longer than a command that needs none."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._pattern = pattern
        self._flags = flags

    @functools.cached_property
    def compiled(self) -> re.Pattern[str]:
        """The pattern itself."""
        return re.compile(self._pattern, self._flags)

    def sub(self, replacement: str, text: str) -> str:
        """Return a text with every match replaced, as `re.Pattern.sub` does."""
        return self.compiled.sub(replacement, text)


# The password ends at the last @ of the word, since it may contain one itself. A port and a path of the web are not a
# password; in the URL of a database, digits before a slash may be one.
_PASSWORD = LatePattern(
    rf"""((?:{_WEB}{_USER}(?=:(?!\d{{1,5}}[/?#]))|(?<![a-z])(?!{_WEB}){_SCHEME}{_USER}(?=:))):([^\s"'<>]{{1,1500}})@""",
    re.IGNORECASE,
)
# A URL that nobody quoted may contain anything up to its host. Texts also have addresses with a port, and mail addresses.
_ODD_PASSWORD = LatePattern(
    rf"""((?:{_WEB}{_USER}(?=:(?![^\s@/]{{0,200}}/[^\s@]{{0,200}}+\s)\S)|(?!{_WEB})\b{_SCHEME}{_USER}(?=:)))"""
    rf""":(?!{_PORT})(?!\*\*\*@)((?:(?!://)[^\n@]){{1,200}})@(?=[\w.\[\-])""",
    re.IGNORECASE,
)
_PASSWORD_ARGUMENT = re.compile(r"[?&]\w*password=([^&#]+)")

_WHOLE_URL = re.compile(rf"({_SCHEME})([^\s:/?#@]{{0,200}})(?::([\s\S]+))?@", re.IGNORECASE)
_URL = re.compile(rf"\s{{0,5}}(?:[a-z]{{1,20}}:)?{_SCHEME}", re.IGNORECASE)
_CONNECTION_VARIABLE = re.compile(
    r"(?:^|_)(?:URL|URI|DSN|CONN|CONNECTION|CONNECTION_?STRING|CONN_?STR)$|CONNSTR_", re.IGNORECASE
)
_CONNECTION_PART = re.compile(
    r"(?:password|pwd|accountkey|sharedaccesskey|sharedaccesssignature|(?<![a-z])sig)\s?=\s?([^\s;&]{1,2000})",
    re.IGNORECASE,
)

_CLEAR_NAMES = (
    r"(?:(?:password|passwd|passphrase|passcode|(?<=[_\-])pwd|pwd(?!\s?[:=]\s?/)"
    r"|(?:api|access|private|signing|secret|encryption|master|account|auth|subscription|license)[_-]?key"
    r"|client[_-]?secret|(?:access|auth|refresh|api|id|bearer|session)[_-]?token)"
    r"(?:[_-]?(?:confirm(?:ation)?|repeat|again|\d{1,3}))?)"
)
_SHORT_NAMES = r"(?:(?<![a-z])(?:pass|pw))"
_NAMES = rf"(?:{_CLEAR_NAMES}|(?:secret|token)(?:_?\d{{1,3}})?)"

# The quotes of JSON inside JSON have backslashes: n of them outside, 2n + 1 before a quote that belongs to the value.
# An apostrophe inside a word does not close. A value goes on in the next line if that is one word, or closes the quote.
_OPEN = r"""(?P<open>(?P<slash>\\{0,255})(?P<quote>["']))"""
_CLOSE = r"(?P<close>(?P=slash)(?P=quote)(?!\w))"
_BODY = (
    r"""(?:(?P=slash)(?P=slash)\\\\|(?P=slash)(?P=slash)\\["']|(?!(?P=slash)(?P=quote)(?!\w))[^\n]"""
    r"""|\n(?=[^\s"']{1,200}(?:\n|\Z)|[^\n"'\\]{0,200}(?P=slash)(?P=quote)(?:[\s,;)\]}]|\Z))){1,2000}+"""
)
_CLOSED = rf"[bru]{{0,2}}{_OPEN}{_BODY}{_CLOSE}"
# An unterminated quote, or a very long value: up to the end of the line.
_QUOTED = rf"(?P<prefix>[bru]{{0,2}}){_OPEN}(?!(?P=slash)(?P=quote)(?!\w))(?:{_BODY}{_CLOSE}|[^\n]+)"
# A comma, semicolon or bracket directly before another character belongs to the value, unless a further setting follows.
_SETTING = (
    r"(?:user|uid|host|server|port|data|db|name|ssl|driver|endpoint|account|timeout|version)\w{0,30}\s?="
)
_PLAIN = (
    r"""(?:[^\s"'&,;)\]}]|["'](?=\w)"""
    rf"""|[,;)\]}}](?=[^\s,;)\]}}"'.&])(?!{_SETTING})|&(?=[^\s&])(?![\w.\-\[\]%]{{1,60}}=))++"""
)
_HIDDEN_ALREADY = r"""\*\*\*(?:[&#<\s"',;:)\]}@]|\Z)"""
_ANNOTATION = r"(?:str|bytes|int|float|bool|string|any|none|null|true|false|optional|secretstr|dict|list)(?=\s*(?:[,=)|\[\]}]|$))"
_COMPLAINT = r"(?:field required|value error|input should|expected |must (?:not )?(?:be|have|contain)|is (?:required|missing|empty|too))"
_NO_VALUE = rf"(?!{_HIDDEN_ALREADY}|{_ANNOTATION}|{_COMPLAINT})"
# A line of words, up to a further name with a value.
_WORDS = (
    r"""(?:[^\s"',;)\]}]|["'](?=\w)|[,;)\]}](?=[^\s,;)\]}"'.])"""
    r"""|%s[ \t]{1,5}(?=[^\s])(?!["']?[\w.\-]{1,40}["']?\s?[:=]))++"""
)
_OPTION_TALK = (
    r"(?!-|[<\[(]|(?-i:[A-Z_]{1,40}\])|(?:is|are|was|were|to|and|or|for|with|in|of|must|has|have|can|cannot|may|should"
    r"|will|given|option|argument|flag|requires?|needs?|instead|from|on|if|not|as|that|when|twice|takes)\b)"
)
_HEADER_NAMES = r"(?:(?<![a-z])(?:authorization|(?:set-)?cookie))"
_WITH_A_DIGIT = r"(?=[a-z._~+/=\-]{0,200}\d)[a-z0-9._~+/=\-]{8,2000}"


_ANY_NAME = re.compile("pass|pw|key|token|secret|auth|cookie|sig|bearer", re.IGNORECASE)
"""Part of each name in `_NAMED`; most texts have none."""


def _rule(pattern: str, replacement: str) -> tuple[LatePattern, str]:
    return LatePattern(pattern, re.IGNORECASE | re.MULTILINE), replacement


_KEPT_QUOTES = rf"\g<name>\g<prefix>\g<open>{HIDDEN}\g<close>"
_Rules = tuple[tuple[LatePattern, str], ...]
_URL_RULES: _Rules = (
    (_PASSWORD, rf"\1:{HIDDEN}@"),
    (_ODD_PASSWORD, rf"\1:{HIDDEN}@"),
    # The key of a DSN: https://0123456789abcdef@host/1.
    _rule(r"(https?://)(?=[a-z_\-]{0,200}\d)[a-z0-9_\-]{16,200}@", rf"\1{HIDDEN}@"),
)
_FORMS: _Rules = (
    (
        LatePattern(
            r"-----BEGIN ([A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?)-----[\s\S]*?(?:-----END \1-----|\Z)"
        ),
        HIDDEN,
    ),
    (LatePattern(r"\b(sk|rk|pk)-[A-Za-z0-9_\-]{8,}"), rf"\1-{HIDDEN}"),
    (LatePattern(r"\b(sk|rk|pk)_(live|test)_[A-Za-z0-9]{8,}"), rf"\1_\2_{HIDDEN}"),
    (
        LatePattern(
            r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|xapp-|hf_|npm_|pypi-|whsec_|AIza|ya29\.|SG\.)"
            r"[A-Za-z0-9._\-]{16,}"
        ),
        HIDDEN,
    ),
    (LatePattern(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (LatePattern(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"), HIDDEN),
)
_NAMED: _Rules = (
    # Pairs, as in lists of headers: ("X-Api-Key", "…").
    _rule(
        rf"""(?P<name>[(\[]\s?[bru]?\\{{0,255}}["'][\w\-]{{0,40}}?(?:{_CLEAR_NAMES}|{_HEADER_NAMES})\\{{0,255}}["'],\s{{0,5}}"""
        rf"""(?P<prefix>[bru]?)){_CLOSED}(?=\s?[)\]])""",
        rf"\g<name>\g<open>{HIDDEN}\g<close>",
    ),
    _rule(
        r"""((?<![a-z])authorization\\{0,255}["']?\s{0,5}[:=]\s{0,5}[\[(]?(?:b?\\{0,255}["'])?)"""
        r"""(?:(?:digest|hawk|aws4-[a-z0-9\-]{1,20})\s{1,5}[^\n']++|((?:bearer|basic|token|negotiate|apikey)\s{1,5})?[^\s"',;\\]+)""",
        rf"\1\2{HIDDEN}",
    ),
    _rule(r"\b(bearer)\s{1,5}[A-Za-z0-9._~+/=\-]{16,}", rf"\1 {HIDDEN}"),
    _rule(
        r"""((?<![a-z])(?:set-)?cookie\\{0,255}["']?:\s{0,5}[\[(]?(?:b?\\{0,255}["'])?)[^\s"'\\][^\n"']{0,4000}""",
        rf"\1{HIDDEN}",
    ),
    # Lists of them, up to the end of the list.
    _rule(
        rf"""((?:{_NAMES}|{_SHORT_NAMES})s?\\{{0,255}}["']\s{{0,5}}:\s{{0,5}}\[)(?=\s{{0,5}}[bru]?\\{{0,255}}["'])"""
        r"(?:[^\]\n]|\](?!\s{0,5}(?:[,}\])]|\Z)))++",
        rf"\1{HIDDEN}",
    ),
    # JSON and Python's mappings: "api_key": "…".
    _rule(
        rf"""(?P<name>(?:{_CLEAR_NAMES}s?|{_NAMES}|{_SHORT_NAMES})\\{{0,255}}["']\s{{0,5}}(?::|=>?)\s{{0,5}}[\[(]?\s{{0,5}}"""
        rf"""(?:[a-z_.]{{1,30}}\()?){_QUOTED}""",
        _KEPT_QUOTES,
    ),
    _rule(rf"""({_CLEAR_NAMES}\\{{0,255}}["']\s{{0,5}}:\s{{0,5}}[\[(]?)-?\d[\d.]*""", rf"\1{HIDDEN}"),
    _rule(r"""((?:secret|token)\\{0,255}["']\s{0,5}:\s{0,5}[\[(]?)\d{6,}""", rf"\1{HIDDEN}"),
    _rule(rf"(<(?:[\w.\-]{{1,30}}:)?[\w.\-]{{0,40}}?{_NAMES}>)[^<]{{1,2000}}", rf"\1{HIDDEN}"),
    # An option with its value in a list of arguments: '--password=two words'.
    _rule(
        rf"""(["'])(--?[\w\-]{{0,40}}?(?:{_NAMES}|{_SHORT_NAMES})=)(?:(?!\1)[^\n]){{1,2000}}+""",
        rf"\1\2{HIDDEN}",
    ),
    # Options of commands, in a text and in a list of arguments.
    _rule(
        rf"""(?P<name>["']--?[\w\-]{{0,40}}?(?:{_NAMES}|{_SHORT_NAMES})["'],\s{{0,5}}(?![bru]?["']-)){_QUOTED}""",
        _KEPT_QUOTES,
    ),
    _rule(
        rf"(?P<name>(?<![\w\-])--?[\w\-]{{0,40}}?(?:{_NAMES}|{_SHORT_NAMES})[ \t]{{1,5}})(?!=){_OPTION_TALK}"
        rf"(?:{_QUOTED}|{_PLAIN})",
        rf"\g<name>{HIDDEN}",
    ),
    _rule(r"""(sharedaccesssignature\s?=\s?)[^\s;"']+""", rf"\1{HIDDEN}"),
    # Queries: ?token=…
    _rule(
        rf"""([?&][\w.\-%\[\]]{{0,60}}?(?:{_NAMES}|{_SHORT_NAMES}|(?<![a-z])sig)=)[^\s&#"'<>]+""",
        rf"\1{HIDDEN}",
    ),
    _rule(r"((?<![a-z])(?:sig|signature)=)[a-z0-9%+/=_\-]{16,}", rf"\1{HIDDEN}"),
    # Assignments: password=…, also with a type.
    _rule(
        rf"(?P<name>{_NAMES}(?:\s?:\s?[a-z][\w.\[\]|]{{0,40}})?[ \t]?=(?!=)>?[ \t]?+){_NO_VALUE}(?:{_QUOTED}|{_PLAIN})",
        rf"\g<name>{HIDDEN}",
    ),
    # The results of tests pass, too.
    _rule(
        rf"(?P<name>{_SHORT_NAMES}=){_NO_VALUE}(?!=|(?:\d{{1,5}}|true|false|yes|no|ok)\b)(?:{_QUOTED}|{_PLAIN})",
        rf"\g<name>{HIDDEN}",
    ),
    # YAML: a block of indented lines, or one word in the next line.
    _rule(
        rf"""^(?P<indent>[ \t]{{0,100}}+)(?P<name>[^\n]{{0,200}}?{_NAMES}["']?[ \t]?:[ \t]{{0,5}})[|>][\-+\d]{{0,3}}[ \t]*$"""
        r"(?:\n(?:(?P=indent)[ \t]+[^\n]*|[ \t]*(?=\n|\Z)))++",
        rf"\g<indent>\g<name>{HIDDEN}",
    ),
    _rule(
        rf"""({_CLEAR_NAMES}["']?:[ \t]{{0,5}}\n[ \t]{{1,100}})[^\s:]{{1,2000}}[ \t]{{0,5}}$""",
        rf"\1{HIDDEN}",
    ),
    # Headers and YAML: X-Api-Key: …. A passphrase has several words. After a bare "token:" often comes a sentence, so its
    # value must look like a token.
    _rule(
        rf"(?P<name>(?<!--)(?:passphrase)[ \t]?:[ \t]{{0,5}}+){_NO_VALUE}(?:{_QUOTED}|{_WORDS % '[,;]?'})",
        rf"\g<name>{HIDDEN}",
    ),
    _rule(
        rf"(?P<name>(?<!--)(?:password|passwd|passcode)[ \t]?:[ \t]{{0,5}}+){_NO_VALUE}(?:{_QUOTED}|{_WORDS % ''})",
        rf"\g<name>{HIDDEN}",
    ),
    _rule(
        rf"(?P<name>(?<!--){_CLEAR_NAMES}[ \t]?:[ \t]{{0,5}}+){_NO_VALUE}(?:{_QUOTED}|{_PLAIN})",
        rf"\g<name>{HIDDEN}",
    ),
    _rule(
        rf"""((?:secret|token|(?:api|access|secret|signing) key)\s?:\s{{0,5}}["']?){_WITH_A_DIGIT}""",
        rf"\1{HIDDEN}",
    ),
)


_SECRET_NAME = re.compile(
    r"password|passwd|passphrase|passcode|secret(?!ar)|credential"
    r"|(?:api|access|private|signing|encryption|master|service|account|auth|ssh|license)keys?$"
    r"|(?:(?:api|access|auth|refresh|bearer|session|security|csrf|id)tokens?|tokens?)(?:value|string)?$"
)
"""Names in lower case and without separators whose values are secrets. Counts like `token_count` do not match."""

_SECRET_WORDS = frozenset(
    {"pass", "pw", "pwd", "pat", "pin", "auth", "authorization", "bearer", "cookie", "cookies", "jwt", "otp"}
)
"""Last words of such names that are part of other words."""


def compile_rules() -> None:
    """Compile all patterns: a process that lives long does so when it starts, not when the first task fails."""
    for pattern, _ in (*_URL_RULES, *_FORMS, *_NAMED):
        _ = pattern.compiled


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without secrets. `secrets` are those that the caller knows besides the environment."""
    return Redactor(secrets).redact(text[:MAX_TEXT_LENGTH])[:MAX_TEXT_LENGTH]


def is_secret_name(name: str) -> bool:
    """Return whether a field with this name holds a secret: `password`, `X-Api-Key`, `accessToken`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:200]).lower()
    words = re.sub(r"[^a-z]+$", "", words)  # password2, api_key_2
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
        rules = (*(_URL_RULES if "://" in text else ()), *_FORMS, *(_NAMED if _ANY_NAME.search(text) else ()))
        for pattern, replacement in rules:
            text = pattern.sub(replacement, text)
        return text


def passwords(url: str) -> Iterator[str]:
    """Yield the passwords in a URL, as written there and unquoted."""
    for password in _PASSWORD_ARGUMENT.findall(url):
        yield password
        yield unquote(password)
    found = _WHOLE_URL.search(url)
    if found is None or not found[3]:
        return
    # It may contain an @, and so may what follows the host.
    for password in dict.fromkeys((found[3], found[3].partition("@")[0])):
        if not (re.match(_WEB, found[1]) and re.match(r"\d{1,5}[/?#]", password)):
            yield password
            yield unquote(password)


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name) and not _is_ordinary(name, value):
            yield from _parts(value, several=bool(_SEVERAL.search(name)))
        if _URL.match(value):
            yield from passwords(value)
            for url in re.split(r"[,;\s]+", value):
                yield from _in_url(url, is_dsn=name.upper().endswith("DSN"))
        if _CONNECTION_VARIABLE.search(name):
            yield from _CONNECTION_PART.findall(value)


def _parts(value: str, *, several: bool) -> Iterator[str]:
    """Yield a secret, its lines, and what it lists. A number in a variable of several is one of MAX_TOKENS."""
    if several and value.isdigit():
        return
    yield value
    lines = re.split(r"\r|\n|\\n", value)
    if len(lines) > 1:
        yield from (
            line.strip() for line in lines if len(line.strip()) >= _MIN_PART_LENGTH and "-----" not in line
        )
        return
    for listed in re.split(r"[,;]", value):
        yield listed.strip(_BRACKETS)
        yield from _words(listed.split(), several=several)


def _words(words: list[str], *, several: bool) -> Iterator[str]:
    """Yield the words of a list with spaces. Those of a passphrase occur in other texts."""
    for word in (word.strip(_BRACKETS) for word in words if len(words) > 1):
        if len(word) >= _MIN_PART_LENGTH and (several or not word.isalpha()):
            yield word


def _in_url(url: str, *, is_dsn: bool) -> Iterator[str]:
    yield from passwords(url)
    found = _WHOLE_URL.search(url)
    # The user of a database is not a secret, and neither is a short one of a page.
    least = _MIN_PART_LENGTH if is_dsn else 20
    if found is not None and found[1].lower() in ("https://", "http://") and len(found[2]) >= least:
        yield found[2]


def _is_ordinary(name: str, value: str) -> bool:
    return name in _FOLDER_VARIABLES or value.lower() in _ORDINARY_VALUES or _is_path(value)


def _is_path(value: str) -> bool:
    """Return whether a variable names a file or folder that exists, as GOOGLE_APPLICATION_CREDENTIALS does."""
    try:
        return value.startswith((os.sep, "~")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return False
