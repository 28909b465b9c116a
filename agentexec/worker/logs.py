"""The worker's log: one line an event, with the process it comes from."""

from __future__ import annotations

import logging
import sys

from agentexec.config import CONF
from agentexec.redaction import redact

FORMAT = "%(asctime)s %(levelname)-7s {name}: %(message)s"


CONTROLS = dict.fromkeys(
    {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)
"""What could rewrite the terminal: errors of tasks hold texts of others."""


class Redacting(logging.Formatter):
    """Formats records, tracebacks too, and takes secrets and control characters out of the whole."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), CONF.secrets).translate(CONTROLS)


def set_up(process: str, level: str) -> None:
    """Log to standard error. Handlers that the application has set up are left alone."""
    logger = logging.getLogger("agentexec")
    logger.setLevel(level)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacting(FORMAT.format(name=process), datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False
