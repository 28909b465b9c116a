"""Channels between the processes of a host: JSON objects, one a line, over sockets."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

log = logging.getLogger("agentexec.control")

MAX_LINE_BYTES = 1_048_576
"""Longest line that is read; our messages have less than a hundredth of that."""


class MessageDecoder:
    """Decoder of messages from bytes as they arrive. Invalid messages are skipped, and logged once.

    The user's module runs in processes that have these sockets open, so anything may be written to them.
    """

    def __init__(self) -> None:
        self._incomplete = b""
        self._warned = False

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """Add bytes, and return the messages that are now complete."""
        *lines, self._incomplete = (self._incomplete + chunk).split(b"\n")
        if len(self._incomplete) > MAX_LINE_BYTES:
            self._incomplete = b""
            self.warn_once()
        found: list[dict[str, Any]] = []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                found.append(message)
            else:
                self.warn_once()
        return found

    def warn_once(self) -> None:
        """Log that a message is invalid, unless that was logged before."""
        if not self._warned:
            self._warned = True
            log.warning(
                "Ignored an invalid message from another process of this worker. Further ones are not logged."
            )


class Channel:
    """One end of a socket that carries messages in both directions."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = MessageDecoder()

    def fileno(self) -> int:
        """Return the file descriptor, for selectors."""
        return self._end.fileno()

    def send(self, message: dict[str, Any]) -> bool:
        """Send a message. Returns False if the other end is closed."""
        try:
            self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def read(self) -> list[dict[str, Any]] | None:
        """Return the messages that have arrived, without waiting; None once the other end is closed."""
        try:
            chunk = self._end.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        return self._lines.feed(chunk) if chunk else None

    def warn_once(self) -> None:
        """Log that the content of a message is invalid, unless that was logged before."""
        self._lines.warn_once()

    def close(self) -> None:
        """Close this end, in this process."""
        self._end.close()
