"""The worker's log: one line per event, with the process that it comes from."""

from __future__ import annotations

import io
import logging
import sys
import time
from uuid import UUID

from agentexec.config import CONF
from agentexec.redaction import redact

FORMAT = "%(asctime)s %(levelname)-7s {name}: %(message)s"


BIDI = {0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
"""Characters that change the direction of writing, or break lines unnoticed by a log collector."""

CONTROLS = dict.fromkeys(
    {*range(0x20), *range(0x7F, 0xA0), *BIDI} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)
"""Control characters and their replacement. Errors of tasks contain foreign texts, which could rewrite the terminal."""


class RedactingFormatter(logging.Formatter):
    """Formatter that removes secrets and control characters, also from tracebacks.

    Times are in UTC: the user's module may change the time zone of worker processes, as Django does.
    """

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), CONF.secrets).translate(CONTROLS)


def log_failure(log: logging.Logger, task_name: str, agent_id: UUID, error: str) -> None:
    """Log a task's final failure in one line, for log collectors. The traceback follows at the level debug."""
    first, _, rest = error.partition("\n")
    log.error("Task %s %s failed: %s", task_name, agent_id, first)
    if rest:
        log.debug("%s", error)


def set_up(process: str, level: str) -> None:
    """Log to standard error, without a change to the handlers of the application.

    Standard output is written line by line, so that what handlers print shows at once also in a file or pipe.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    logger = logging.getLogger("agentexec")
    logger.setLevel(level)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(FORMAT.format(name=process), datefmt="%Y-%m-%dT%H:%M:%SZ"))
    logger.addHandler(handler)
    logger.propagate = False
