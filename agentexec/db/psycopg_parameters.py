"""Parameters of a database URL's query, as psycopg understands them."""

from __future__ import annotations

import math
from typing import Any

from agentexec.errors import UsageError

POOLER_PARAMETER = "pgbouncer"
"""Parameter of a URL that says whether a pooler in transaction mode is there, as other libraries have it."""

ASYNCPG_CACHES = ("statement_cache_size", "prepared_statement_cache_size")

ASYNCPG_ONLY = (
    *ASYNCPG_CACHES,
    "prepared_statement_name_func",
    "max_cached_statement_lifetime",
    "max_cacheable_statement_size",
    "command_timeout",
    "async_fallback",
)
"""Parameters that asyncpg and its dialect read. They say nothing about psycopg's connections, except for a cache of 0."""

NOT_TEXT = ("autocommit", "context", "row_factory", "cursor_factory")
"""Arguments of psycopg.connect that no text can give."""

TRUE, FALSE = ("true", "1", "on", "yes"), ("false", "0", "off", "no")


def read_parameters(parameters: dict[str, Any], psycopg: Any) -> bool | None:
    """Turn the texts of a URL's query into what psycopg accepts, in place; return the answer of `pgbouncer=`, if given.

    Arguments that are not texts come from `connect_args` and stay as they are.

    Args:
        parameters: Arguments of `psycopg.connect`.
        psycopg: The driver's module.

    Raises:
        UsageError: A parameter is unknown, or has a value that it cannot have.
    """
    pooled = _flag(parameters.pop(POOLER_PARAMETER, None))
    _translate_asyncpg(parameters)
    threshold = parameters.get("prepare_threshold")
    if isinstance(threshold, str):
        parameters["prepare_threshold"] = _threshold(threshold)
    libpq = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    for name, value in parameters.items():
        if not isinstance(value, str):
            continue
        if name in NOT_TEXT:
            raise UsageError(f"The database URL cannot set {name}; remove it from the URL.")
        if name not in libpq and name not in ("conninfo", "prepare_threshold"):
            raise UsageError(
                f"PostgreSQL's driver psycopg does not know the parameter {name} of the database URL; remove it, or correct it."
            )
    return pooled


def _translate_asyncpg(parameters: dict[str, Any]) -> None:
    if any(parameters.get(name) in ("0", 0) for name in ASYNCPG_CACHES):
        parameters.setdefault("prepare_threshold", None)
    for name in ASYNCPG_ONLY:
        parameters.pop(name, None)
    if isinstance(mode := parameters.get("ssl"), str):
        del parameters["ssl"]
        plain = {**dict.fromkeys(TRUE, "require"), **dict.fromkeys(FALSE, "disable")}
        parameters.setdefault("sslmode", plain.get(mode.lower(), mode))
    if isinstance(seconds := parameters.get("timeout"), str):
        del parameters["timeout"]
        parameters["connect_timeout"] = _whole_seconds(seconds)


def _threshold(text: str) -> int | None:
    """Return the number of uses after which a statement is prepared; None for never."""
    if text.strip().lower() in ("", "none", "null"):
        return None
    if not (text.strip().isascii() and text.strip().isdigit()):
        raise UsageError(
            f"prepare_threshold in the database URL is {text[:40]!r}; set it to a number, or to none to never prepare statements."
        )
    return int(text)


def _whole_seconds(text: str) -> int:
    try:
        return max(1, math.ceil(float(text)))
    except (ValueError, OverflowError):
        raise UsageError(
            f"timeout in the database URL is {text[:40]!r}; set it to a number of seconds."
        ) from None


def _flag(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in (*TRUE, *FALSE):
        raise UsageError(
            f"{POOLER_PARAMETER} in the database URL is {text[:40]!r}; set it to true if a pooler in transaction mode is "
            "there, or to false."
        )
    return text in TRUE
