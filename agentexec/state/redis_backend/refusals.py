"""Meaning of the errors that Redis and its client raise: an outage that passes, or a server that somebody must change."""

from __future__ import annotations

import re
from typing import TypeVar

import redis

from agentexec.errors import UnavailableError
from agentexec.redaction import redact

E = TypeVar("E", bound=Exception)

CONNECTING = r"^Error -?\d+ connecting to (\S+?)\. "
"""Start of redis-py's message about a server that cannot be reached."""

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

CLIENT_PATTERNS: tuple[tuple[str, str], ...] = (
    # A server that is being stopped, or a proxy without one, closes the connection in the same way.
    (r"UNEXPECTED_EOF|EOF occurred|handshake operation timed out", "HANDSHAKE"),
    (r"\[SSL\b|\[X509\b|_ssl\.c:|No cipher can be selected", "TLS"),
    # The first byte of an alert of TLS, by hiredis and by redis-py's own parser.
    (r"(?i)protocol error(, got \"|: b['\"])\\x15", "SECURE"),
    ("'idna' codec", "HOST"),
)
"""Codes of errors that the client finds before it asks the server, by a part of their message."""

TLS_REASONS: tuple[tuple[str, str], ...] = (
    ("KEY_VALUES_MISMATCH", "ssl_keyfile is not the key of ssl_certfile"),
    ("PEM lib|NO_START_LINE", "ssl_certfile and ssl_keyfile are not a certificate and its key in PEM format"),
    ("NO_CERTIFICATE_OR_CRL_FOUND|does not contain a certificate", "ssl_ca_certs has no certificate"),
    ("No cipher can be selected", "ssl_ciphers names none that exists"),
    (
        "WRONG_VERSION_NUMBER|HTTP_REQUEST|RECORD_LAYER_FAILURE",
        "it answers without TLS, which redis:// is for",
    ),
    ("ALERT_CERTIFICATE_REQUIRED", "it asks for a certificate, which ssl_certfile and ssl_keyfile name"),
    ("handshake operation timed out", "the handshake timed out"),
    ("UNEXPECTED_EOF|EOF occurred", "it closed the connection"),
)
"""Words for what OpenSSL reports."""

PATTERNS: tuple[tuple[str, str], ...] = (
    # Before Redis 7 a script's error has the code of the command that failed in its middle.
    (
        r"\b(BUSY|CLUSTERDOWN|DENIED|LOADING|MASTERDOWN|MISCONF|MOVED|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNBLOCKED|WRONGTYPE)\b",
        "",
    ),
    (r"ACL failure|no permissions|user executing the script", "NOPERM"),
    (r"(?i)unknown command .SENTINEL\b", "SENTINEL"),
    (r"(?i)unknown (redis )?(command|subcommand)", "UNKNOWN"),
    (r"(?i)client names cannot contain", "ARGUMENT"),
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
    {
        "ARGUMENT",
        "DATABASE",
        "DENIED",
        "HOST",
        "MOVED",
        "NOPERM",
        "PROTOCOL",
        "SECURE",
        "SENTINEL",
        "TLS",
        "UNKNOWN",
        "WRONGPASS",
    }
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
    "SECURE": "speaks TLS on this port: write rediss:// instead of redis:// in AGENTEXEC_REDIS_URL",
    "SENTINEL": "is not a Sentinel: write redis://host:port/0 for the server itself, or the Sentinels' host and port, in AGENTEXEC_REDIS_URL",
    "ARGUMENT": "refuses an argument of AGENTEXEC_REDIS_URL: {reason}; correct it",
    "DATABASE": "cannot be used: {reason}; write another database number at the end of AGENTEXEC_REDIS_URL, or 0",
    "TLS": "cannot be used over TLS: {reason}; correct scheme, host or certificate in AGENTEXEC_REDIS_URL",
    "HANDSHAKE": "cannot be used: no TLS handshake ({reason}); if it has no TLS, write redis:// instead of rediss:// in AGENTEXEC_REDIS_URL",
    "HOST": "cannot be used: its host name is invalid; correct AGENTEXEC_REDIS_URL",
    "PROTOCOL": "does not answer like Redis ({reason}); correct host and port in AGENTEXEC_REDIS_URL",
    "WRONGTYPE": (
        "keeps getting values of another type under agentexec's keys; find out who writes them, or set another AGENTEXEC_KEY_PREFIX"
    ),
}
"""Second half of the message for a code; the first is "Redis at <url>"."""

SENTINELS_SENTENCES = {
    "WRONGPASS": "refuses the user or password ({reason}); correct sentinel_username and sentinel_password in AGENTEXEC_REDIS_URL",
    "NOAUTH": "asks for a password; add sentinel_username and sentinel_password to AGENTEXEC_REDIS_URL, or write redis:// if it is not a Sentinel",
}
"""Those that differ for a Sentinel."""

UNANSWERED = r"(?i)reset by peer|closed by server|broken pipe|timeout reading"
"""Reasons for which the first command of a process may have failed on a port of another protocol."""

HINTS = {
    "redis": "if this port speaks TLS, write rediss:// in AGENTEXEC_REDIS_URL, and if it is not Redis, correct host and port",
    "rediss": "if it asks for a certificate, add ssl_certfile and ssl_keyfile to AGENTEXEC_REDIS_URL",
}
"""Advice for them by the scheme of the URL."""

NODE, SENTINEL = "node", "Sentinel"
"""Kinds of servers that a note names."""


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
    for pattern, code in CLIENT_PATTERNS:
        if re.search(pattern, text):
            return code
    for kind, code in CODES:
        if isinstance(error, kind):
            return code
    for pattern, code in PATTERNS:
        if found := re.search(pattern, text):
            return code or found[1]
    return ""


def noted(error: E, kind: str, host: str, port: int) -> E:
    """Return an error of one of several servers, with a note that names it."""
    if not getattr(error, "__notes__", None):
        error.add_note(f"{kind} {host}:{port}")
    return error


def translate(error: Exception, server: str, *, answered: bool = True) -> UnavailableError:
    """Return the error to raise instead of one of the client's.

    Args:
        error: The client's error.
        server: The URL without secrets.
        answered: False if the server has never answered: the port may be another server's.
    """
    code = code_of(error)
    message = f"{_sentence(error, code, server, answered)}."
    if code in LASTING or code == "READONLY":
        return RefusalError(message, lasting=code in LASTING)
    return UnavailableError(message)


def _sentence(error: Exception, code: str, server: str, answered: bool) -> str:
    """Return the message about an error, without its period."""
    reason, (kind, name) = reason_of(error), _name(error, server)
    if code == "NOPERM":
        command = denied_command(error)
        advice = f"{reason}; `agentexec doctor` says what to add to its ACL"
        return f"The user of Redis at {name} lacks a permission: " + (
            f"add +{command} to its ACL" if command else advice
        )
    if code == "" and not isinstance(error, redis.RedisError):
        return f"The client of Redis at {name} failed: {type(error).__name__}: {reason}"
    if code == "WRONGPASS" and re.search("HELLO must be|Authentication required", reason):
        code = "NOAUTH"
    sentences = SENTENCES | SENTINELS_SENTENCES if kind == SENTINEL else SENTENCES
    sentence = f"Redis at {name} {sentences.get(code, 'cannot be used: {reason}').format(reason=reason)}"
    hint = HINTS.get(server.partition(":")[0])
    doubtful = code == "CONNECTION" and not answered and re.search(UNANSWERED, reason)
    return f"{sentence}; {hint}" if hint and doubtful else sentence


def _name(error: Exception, server: str) -> tuple[str, str]:
    """Return the kind of the server that failed, and its name: with its own address if the URL leads to several."""
    kind, _, node = next(iter(getattr(error, "__notes__", ())), "").partition(" ")
    if not node and "+sentinel:" in server and (found := re.match(CONNECTING, _message(error))):
        node = found[1]
    return kind, name_of(node, server)


def name_of(node: str, server: str) -> str:
    """Return the name of a server for messages: its address, if the URL leads to others too."""
    alone = node in server and "," not in server
    return server if not node or alone else f"{node} (of {server})"


def denied_command(error: Exception) -> str | None:
    """Return the command that the user may not call, in lower case; None if the server names none."""
    found = re.search(r"run the '(\S+?)' command", _message(error))
    return found[1].lower() if found else None


def reason_of(error: Exception) -> str:
    """Return the reason in one line, without the final period and without redis-py's "Error 111 connecting to ..."."""
    text = (_message(error) or type(error).__name__).splitlines()[0].rstrip(". ")
    for pattern, reason in TLS_REASONS:
        if re.search(pattern, text):
            return reason
    text = re.sub(CONNECTING, "", text)
    text = re.sub(r"^Error (.+?)\.? connecting to \S+$", r"\1", text)
    text = re.sub(r"^Error -?\d+ while writing to socket\. ", "", text)
    text = re.sub(r"^Error while reading from \S+ ?: \(-?\d+, ['\"](.+)['\"]\)$", r"\1", text)
    return redact(re.sub(r" ?\(_ssl\.c:\d+\)", "", text))


def _message(error: Exception) -> str:
    """Return the server's message: without the command, which may contain anything."""
    # redis-py hides that the server was reached, and did not answer to TLS.
    if "handshake operation timed out" in str(error.__context__):
        return str(error.__context__)
    text = re.sub(r"(?s)^Command # \d+ .*? of pipeline caused error: ", "", str(error).strip())
    text = re.sub(r"\s*,? with args beginning with:(?s:.*)$", "", text)
    return re.sub(r"\s*script: \w+, on @user_script:\d+\.?$", "", text)
