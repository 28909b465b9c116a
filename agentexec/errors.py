"""Every error that agentexec raises, and the exit code that the command line gives it.

    AgentexecError                  1
    ├── SettingsError               2   a setting has a bad value
    ├── UsageError                  2   a call or command asks for something that cannot be
    │   ├── ModuleLoadError         2   the worker module is missing, broken, or has no pool
    │   ├── BackendInvalidError     2   the state backend module lacks something
    │   ├── UnknownTaskError        2   no task has that name
    │   ├── ContextInvalidError     2   a context does not fit its task's type
    │   └── PayloadTooLargeError    2   a context or result is above the size limit
    ├── UnavailableError            3   a server cannot be reached
    ├── SchemaError                 5   the database lacks a migration, or is newer than this release
    ├── ActivityNotFoundError       1   no activity has that id
    ├── ResultExpiredError          1   the task completed, but its result was removed after its time to live
    └── TaskEndedError              1   a waited-for task did not complete
        ├── TaskFailedError         1
        └── TaskCanceledError       1

`RetryLater` stands apart: it is no error but a handler's way to give its task back, so `except Exception` lets it pass.

Messages are one sentence that says what is wrong and what to do. They never hold a password or a key.
"""

from __future__ import annotations

import math
from uuid import UUID


class AgentexecError(Exception):
    """Base of every error raised by agentexec."""

    exit_code = 1


class SettingsError(AgentexecError):
    """A setting has a value that cannot be used; the message names the variable."""

    exit_code = 2


class UsageError(AgentexecError):
    """A call or command asks for something that cannot be; the message says what to write instead."""

    exit_code = 2


class ModuleLoadError(UsageError):
    """The worker module cannot be imported, or exposes no pool."""


class BackendInvalidError(UsageError):
    """The module named by AGENTEXEC_STATE_BACKEND is no usable state backend."""


class UnknownTaskError(UsageError):
    """No task has the given name."""


class ContextInvalidError(UsageError):
    """A context does not validate against its task's context type."""


class PayloadTooLargeError(UsageError):
    """A context, metadata or result is above AGENTEXEC_MAX_PAYLOAD_BYTES."""


class UnavailableError(AgentexecError):
    """Redis or the database cannot be reached."""

    exit_code = 3


class SchemaError(AgentexecError):
    """The database schema is missing, older or newer than this release needs."""

    exit_code = 5


class ActivityNotFoundError(AgentexecError):
    """No activity has the given agent_id."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(f"There is no activity with agent_id {agent_id}.")
        self.agent_id = agent_id


class ResultExpiredError(AgentexecError):
    """The task completed, but its result was removed after AGENTEXEC_RESULT_TTL seconds."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(
            f"The result of task {agent_id} has expired; raise AGENTEXEC_RESULT_TTL to keep results longer."
        )
        self.agent_id = agent_id


class TaskEndedError(AgentexecError):
    """A waited-for task ended without a result."""

    def __init__(
        self, message: str, *, task_name: str, agent_id: UUID, error: str | None, attempts: int
    ) -> None:
        super().__init__(message)
        self.task_name = task_name
        self.agent_id = agent_id
        self.error = error
        self.attempts = attempts


class TaskFailedError(TaskEndedError):
    """A waited-for task failed for good."""

    def __init__(self, *, task_name: str, agent_id: UUID, error: str | None, attempts: int) -> None:
        super().__init__(
            f"Task {task_name} ({agent_id}) failed after {attempts} attempt(s): {_first_line(error)}",
            task_name=task_name,
            agent_id=agent_id,
            error=error,
            attempts=attempts,
        )


class TaskCanceledError(TaskEndedError):
    """A waited-for task was canceled."""

    def __init__(self, *, task_name: str, agent_id: UUID, error: str | None, attempts: int) -> None:
        super().__init__(
            f"Task {task_name} ({agent_id}) was canceled.",
            task_name=task_name,
            agent_id=agent_id,
            error=error,
            attempts=attempts,
        )


class RetryLater(BaseException):
    """Give the running task back to the queue, to be started again after some seconds; this attempt does not count.

    Raise it in a handler, or in what it calls, when going on now makes no sense: the worker's slot is free for other
    tasks meanwhile. `seconds`: 0 or more. `reason` completes the log line "Waiting 40 s: …". Raises UsageError for
    seconds that are no number of 0 or more.
    """

    def __init__(self, seconds: float, reason: str = "the task asked to be run later") -> None:
        if not math.isfinite(seconds) or seconds < 0:
            raise UsageError(f"RetryLater takes a number of seconds, 0 or more, not {seconds}.")
        super().__init__(f"Waiting {math.ceil(seconds)} s: {reason}.")
        self.seconds = seconds
        self.reason = reason


def _first_line(error: str | None) -> str:
    """The reason without its traceback, which `error` keeps."""
    return (error or "no reason recorded").splitlines()[0]
