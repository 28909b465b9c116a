"""The worker's log: one line an event, with the process it comes from."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)-7s {name}: %(message)s"


def set_up(process: str, level: str) -> None:
    """Log to standard error. Handlers that the application has set up are left alone."""
    logger = logging.getLogger("agentexec")
    logger.setLevel(level)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT.format(name=process), datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False
