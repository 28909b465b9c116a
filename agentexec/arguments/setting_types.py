"""Types of settings whose values have a rule of their own."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from agentexec.arguments.budgets import parse_windows
from agentexec.arguments.encryption_keys import check_key
from agentexec.arguments.queue_names import find_problem
from agentexec.arguments.served_queues import format_queues
from agentexec.arguments.versions import checked_version
from agentexec.arguments.webhooks import parse_secret
from agentexec.errors import UsageError

MIN_KEY_LENGTH = 16
"""Characters of the shortest key or token."""

MAX_TOKEN_LENGTH = 1000
"""Characters of the longest token of the dashboard."""


def split_keys(keys: SecretStr | None) -> list[str]:
    """Return the keys of a setting that may have several, with commas between them."""
    return [] if keys is None else [key.strip() for key in keys.get_secret_value().split(",")]


def _checked_keys(value: SecretStr) -> SecretStr:
    if any(len(key) < MIN_KEY_LENGTH for key in split_keys(value)):
        raise ValueError(f"each key needs {MIN_KEY_LENGTH} characters or more, with commas between keys")
    return value


def _checked_secrets(value: SecretStr) -> SecretStr:
    for secret in split_keys(value):
        parse_secret(secret)
    return value


def _checked_encryption_keys(value: SecretStr) -> SecretStr:
    for key in split_keys(value):
        check_key(key)
    return value


def _checked_store(value: str) -> str:
    if not re.fullmatch(r"file:///.+|(?!file:)[a-z][a-z0-9+.-]*://[^/\s].*", value, re.ASCII | re.DOTALL):
        raise ValueError("it must be a URL, such as file:///var/lib/agentexec or s3://bucket/folder")
    return value


def _checked_token(value: SecretStr) -> SecretStr:
    if not MIN_KEY_LENGTH <= len(value) <= MAX_TOKEN_LENGTH:
        raise ValueError(f"it needs {MIN_KEY_LENGTH} to {MAX_TOKEN_LENGTH} characters")
    return value


def _checked_version(value: str) -> str:
    try:
        return checked_version("it", value) or value
    except UsageError as error:
        raise ValueError(str(error).rstrip(".")) from None


def _checked_level(value: str) -> str:
    level = value.upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
        raise ValueError("must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return level


def _checked_format(value: str) -> str:
    log_format = value.lower()
    if log_format not in {"text", "json"}:
        raise ValueError("must be text or json")
    return log_format


def _checked_queue_name(value: str) -> str:
    if (problem := find_problem(value)) is not None:
        raise ValueError(
            f"{problem}; give the queue another name, and drain the tasks that wait in the old one with "
            "`agentexec worker -Q` and its name in double quotes"
        )
    return value


def _checked_queues(value: str) -> str:
    try:
        return format_queues(value) if value.strip() else ""
    except UsageError as error:
        raise ValueError(str(error).rstrip(".")) from None


def _checked_message(value: str) -> str:
    try:
        value.format(error="")
    except (KeyError, IndexError, ValueError):
        raise ValueError("may contain the placeholder {error} only") from None
    return value


def _checked_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip())) if value.strip() else ""
    except ValueError:
        raise ValueError(
            "must be an IP address of this host, such as 127.0.0.1 or ::1, or empty for all"
        ) from None


def _checked_prefix(value: str) -> str:
    if value and not value.replace("_", "a").isalnum():
        raise ValueError("may contain letters, digits and underscores only")
    return value


def _checked_budgets(value: str) -> str:
    parse_windows(value)
    return value


def _checked_table(value: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_.-]{3,255}", value):
        raise ValueError("must have 3 to 255 letters, digits, underscores, hyphens and dots")
    return value


Budgets = Annotated[str, AfterValidator(_checked_budgets)]
DashboardToken = Annotated[SecretStr, AfterValidator(_checked_token)]
DynamoTable = Annotated[str, AfterValidator(_checked_table)]
EncryptionKeys = Annotated[SecretStr, AfterValidator(_checked_encryption_keys)]
ListenAddress = Annotated[str, AfterValidator(_checked_address)]
LogLevel = Annotated[str, AfterValidator(_checked_level)]
LogFormat = Annotated[str, AfterValidator(_checked_format)]
PayloadStore = Annotated[str, AfterValidator(_checked_store)]
QueueName = Annotated[str, AfterValidator(_checked_queue_name)]
ServedQueues = Annotated[str, AfterValidator(_checked_queues)]
SigningKeys = Annotated[SecretStr, AfterValidator(_checked_keys)]
Version = Annotated[str, AfterValidator(_checked_version)]
WebhookSecrets = Annotated[SecretStr, AfterValidator(_checked_secrets)]
TablePrefix = Annotated[str, AfterValidator(_checked_prefix)]
ErrorMessage = Annotated[str, AfterValidator(_checked_message)]
