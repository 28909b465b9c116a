"""Texts that an option takes as they are, from a file (@FILE), or from standard input (-)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import agentexec as ax
from agentexec.errors import UsageError

MAX_WHITESPACE_FACTOR = 4
"""Factor by which a text may be larger than AGENTEXEC_MAX_PAYLOAD_BYTES, for the white space of formatted JSON."""


def read_text(text: str) -> str:
    """Return the text that an option means. Raises UsageError for a file that cannot be read."""
    if text == "-":
        return _read(sys.stdin.buffer, "Standard input")
    if not text.startswith("@"):
        return text
    try:
        with Path(text[1:]).open("rb") as file:
            return _read(file, f"File {text[1:]}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"Cannot read the file {text[1:]}: {reason}.") from None


def _read(file: BinaryIO, source: str) -> str:
    """Read a UTF-8 text no larger than a context may be with its white space. Raises UsageError."""
    max_bytes = MAX_WHITESPACE_FACTOR * ax.CONF.max_payload_bytes
    data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UsageError(
            f"{source} is larger than AGENTEXEC_MAX_PAYLOAD_BYTES={ax.CONF.max_payload_bytes} allows."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{source} is not UTF-8 text.") from None
