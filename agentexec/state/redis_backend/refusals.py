"""Meaning of the errors that Redis and its client raise: an outage that passes, or a server that somebody must change."""

from __future__ import annotations

import re

import redis

from agentexec.errors import UnavailableError
from agentexec.redaction import redact

CODES: tuple[tuple[type[Exception], str], ...] = (
    (redis.exceptions.BusyLoadingError, "LOADING"),
    (redis.exceptions.AuthenticationError, "WRONGPASS"),
    (redis.exceptions.NoPermissionError, "NOPERM"),
    (redis.exceptions.ReadOnlyError, "READONLY"),
    (redis.exceptions.OutOfMemoryError, "OOM"),
    (redis.exceptions.MovedError, "MOVED"),
    (redis.exceptions.AskError, "MOVED"),
    (redis.exceptions.ClusterCrossSlotError, "MOVED"),
    (redis.exceptions.ClusterDownError, "CLUSTERDOWN"),
    (redis.exceptions.MasterDownError, "MASTERDOWN"),
    (redis.exceptions.TryAgainError, "TRYAGAIN"),
    (redis.exceptions.NoScriptError, "NOSCRIPT"),
    (redis.exceptions.InvalidResponse, "PROTOCOL"),
    (redis.exceptions.ConnectionError, "CONNECTION"),
    (redis.exceptions.TimeoutError, "CONNECTION"),
    (OSError, "CONNECTION"),
)
"""Code of each class of error whose message does not start with it."""

CLIENT_PATTERNS = (("[SSL:", "TLS"), ("'idna' codec", "HOST"))
"""Codes of errors that the client finds before it asks the server, by a part of their message."""

PATTERNS: tuple[tuple[str, str], ...] = (
    # Before Redis 7 a script's error has the code of the command that failed in its middle.
    (
        r"\b(BUSY|CLUSTERDOWN|DENIED|LOADING|MASTERDOWN|MISCONF|MOVED|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNBLOCKED|WRONGTYPE)\b",
        "",
    ),
    (r"ACL failure|no permissions|user executing the script", "NOPERM"),
    (r"(?i)unknown (redis )?(command|subcommand)", "UNKNOWN"),
    (r"(?i)DB index|invalid database|SELECT is not allowed", "DATABASE"),
    (r"read only replica", "READONLY"),
)
"""Codes of other messages; with an empty code, that of the pattern's group."""

OUTAGES = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    }
)
"""Codes of a server that will recover; the command itself is valid."""

LASTING = frozenset(
    {"DATABASE", "DENIED", "HOST", "MOVED", "NOPERM", "PROTOCOL", "TLS", "UNKNOWN", "WRONGPASS"}
)
"""Codes of a server that refuses until somebody changes it or the settings."""

SENTENCES = {
    "WRONGPASS": "refuses the user or password ({reason}); correct them in AGENTEXEC_REDIS_URL",
    "NOAUTH": "asks for a password; add user and password to AGENTEXEC_REDIS_URL, before the host",
    "DENIED": "cannot be used: its protected mode refuses other hosts; give it a password, and AGENTEXEC_REDIS_URL too",
    "OOM": "is full: raise its maxmemory, or let the workers empty the queue",
    "READONLY": "cannot be used: it is a read-only replica; set AGENTEXEC_REDIS_URL to the primary",
    "MOVED": "is a cluster of several shards that does not show their map; add +cluster|slots to the user's ACL",
    "UNKNOWN": (
        "cannot be used: {reason}; set AGENTEXEC_REDIS_URL to a Redis 6.2 or a Valkey with this command, not to a Sentinel or an older server"
    ),
    "DATABASE": "cannot be used: {reason}; write another database number at the end of AGENTEXEC_REDIS_URL, or 0",
    "TLS": "cannot be used over TLS: {reason}; correct scheme, host or certificate in AGENTEXEC_REDIS_URL",
    "HOST": "cannot be used: its host name is invalid; correct AGENTEXEC_REDIS_URL",
    "PROTOCOL": "does not answer like Redis ({reason}); correct host and port in AGENTEXEC_REDIS_URL",
    "WRONGTYPE": (
        "keeps getting values of another type under agentexec's keys; find out who writes them, or set another AGENTEXEC_KEY_PREFIX"
    ),
}
"""Second half of the message for a code; the first is "Redis at <url>"."""


class RefusalError(UnavailableError):
    """Server that can be reached but does not serve agentexec.

    Args:
        lasting: True if it stays so until somebody changes the server or the settings.
    """

    exit_code = 2

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


def code_of(error: Exception) -> str:
    """Return the code that says what an error means; empty for an unknown one."""
    text = _message(error)
    for part, code in CLIENT_PATTERNS:
        if part in text:
            return code
    for kind, code in CODES:
        if isinstance(error, kind):
            return code
    for pattern, code in PATTERNS:
        if found := re.search(pattern, text):
            return code or found[1]
    return ""


def translate(error: Exception, server: str) -> UnavailableError:
    """Return the error to raise instead of one of the client's; `server` is the URL without secrets."""
    code, reason = code_of(error), reason_of(error)
    if code == "NOPERM":
        command = denied_command(error)
        message = f"The user of Redis at {server} lacks a permission: " + (
            f"add +{command} to its ACL."
            if command
            else f"{reason}; `agentexec doctor` says what to add to its ACL."
        )
    elif code == "WRONGPASS" and re.search("HELLO must be|Authentication required", reason):
        message = f"Redis at {server} {SENTENCES['NOAUTH']}."
    elif code == "" and not isinstance(error, redis.RedisError):
        message = f"The client of Redis at {server} failed: {type(error).__name__}: {reason}."
    else:
        sentence = SENTENCES.get(code, "cannot be used: {reason}")
        message = f"Redis at {server} {sentence.format(reason=reason)}."
    if code in LASTING or code == "READONLY":
        return RefusalError(message, lasting=code in LASTING)
    return UnavailableError(message)


def denied_command(error: Exception) -> str | None:
    """Return the command that the user may not call, in lower case; None if the server names none."""
    found = re.search(r"run the '(\S+?)' command", _message(error))
    return found[1].lower() if found else None


def reason_of(error: Exception) -> str:
    """Return the reason in one line, without the final period and without redis-py's "Error 111 connecting to ..."."""
    text = (_message(error) or type(error).__name__).splitlines()[0].rstrip(". ")
    # Where no Sentinel tells the primary, redis-py shows its clients of them.
    text = re.sub(r"<redis\.client\.Redis\(.*?host=([^,)]+),port=(\d+).*?\)>\)>\)> - ", r"\1:\2 ", text)
    return redact(re.sub(r"^Error -?\d+ connecting to \S+?\. ", "", text))


def _message(error: Exception) -> str:
    """Return the server's message: without the command, which may contain anything."""
    text = re.sub(r"(?s)^Command # \d+ .*? of pipeline caused error: ", "", str(error).strip())
    text = re.sub(r"\s*,? with args beginning with:(?s:.*)$", "", text)
    return re.sub(r"\s*script: \w+, on @user_script:\d+\.?$", "", text)
