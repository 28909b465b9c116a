"""Log line and count of each task that has failed for good.

Apart from the set-up of the log, which the supervisor uses too: it loads no database.
"""

from __future__ import annotations

import logging
from uuid import UUID

from agentexec.runtime import RUNTIME
from agentexec.telemetry.names import TASKS


def log_failure(log: logging.Logger, task_name: str, agent_id: UUID, error: str) -> None:
    """Log a task's final failure in one line, for log collectors, and count it. JSON has the traceback; text at the level debug."""
    if RUNTIME.meter is not None:
        RUNTIME.meter.add(TASKS, task_name, "error")
    first, _, rest = error.partition("\n")
    log.error("Task %s %s failed: %s", task_name, agent_id, first, extra={"error": error})
    if rest:
        log.debug("%s", error)
