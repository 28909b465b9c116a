"""What the processes of a host tell each other: JSON objects, one a line, over sockets."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

log = logging.getLogger("agentexec.control")

MOST_BYTES = 1_048_576
"""Of a line: no message of ours has a hundredth of it."""


class MessageDecoder:
    """Makes messages of bytes as they come. What is no message is left out, with one log line for all of it.

    The user's module runs in processes that have these sockets open, so anything may be written to them.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._warned = False

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The messages that are complete now."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MOST_BYTES:
            self._rest = b""
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
        """Note something that cannot be understood."""
        if not self._warned:
            self._warned = True
            log.warning(
                "A message between processes could not be understood; it is ignored, as further ones are."
            )


class Channel:
    """One end of a socket on which messages come and go."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = MessageDecoder()

    def fileno(self) -> int:
        """For selectors."""
        return self._end.fileno()

    def send(self, message: dict[str, Any]) -> bool:
        """Say something; False if nobody is there to hear it."""
        try:
            self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def read(self) -> list[dict[str, Any]] | None:
        """What has come, without waiting for more; None once the other end is closed."""
        try:
            chunk = self._end.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        return self._lines.feed(chunk) if chunk else None

    def warn_once(self) -> None:
        """Note that a message made no sense."""
        self._lines.warn_once()

    def close(self) -> None:
        """Close this end, in this process."""
        self._end.close()
