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
    ├── LeaseLostError              1   another worker has the task by now, or it was canceled
    ├── ReplayDivergedError         1   a run went another way than its record (also `ax.ReplayDiverged`)
    │   └── JournalConflictError    1   two facts for one place in the journal
    ├── CallInterruptedError        1   a step was cut off, and its policy forbids to make it again
    ├── ApprovalNotFoundError       1   no call with that id was ever up for approval
    └── TaskEndedError              1   a waited-for task did not complete
        ├── TaskFailedError         1
        └── TaskCanceledError       1

`RetryLater`, `WaitingForApproval` and `WaitingForEvent` stand apart: they are no errors but ways to give a task back,
so `except Exception` lets them pass.

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


class LeaseLostError(AgentexecError):
    """A worker that was taken for dead came back: the task is another's, ended or canceled, and nothing was recorded."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(
            f"Task {agent_id} is no longer this worker's: it was given to another, canceled or ended; this attempt stops."
        )
        self.agent_id = agent_id


class ReplayDivergedError(AgentexecError):
    """A handler that runs again asked for something else than the first time; the message says where and what.

    Replay needs the same runs with the same inputs in the same order.
    """

    def __init__(self, message: str, *, agent_id: UUID, path: str) -> None:
        super().__init__(message)
        self.agent_id = agent_id
        self.path = path


ReplayDiverged = ReplayDivergedError


class JournalConflictError(ReplayDivergedError):
    """Two different facts were to be recorded in one place of the journal."""

    def __init__(self, agent_id: UUID, path: str) -> None:
        super().__init__(
            f"Task {agent_id} recorded two different things at {path}; a call id was used twice within one run.",
            agent_id=agent_id,
            path=path,
        )


class CallInterruptedError(AgentexecError):
    """A step with the policy "fail" was cut off in an earlier attempt: whether it took effect is unknown."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The step {name} was cut off by a restart, and it is unknown whether it took effect; catch this error "
            'to find out, or give the step policy="idempotent" if it may be made twice.'
        )
        self.name = name


class ApprovalNotFoundError(AgentexecError):
    """No call of a task with the given id was ever up for approval."""

    def __init__(self, agent_id: UUID, call_id: str) -> None:
        super().__init__(
            f"Task {agent_id} has asked for no approval of a call {call_id}; `agentexec approvals` lists those that wait."
        )
        self.agent_id = agent_id
        self.call_id = call_id


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


class Postponed(BaseException):
    """The running task goes back to the queue for some seconds, and the attempt does not count.

    No `Exception`: whatever stands in between lets it pass, agents' SDKs too.
    """

    def __init__(self, seconds: float, message: str, waiting_for: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.waiting_for = waiting_for
        """Kinds of what the task waits for: it goes on as soon as that is there."""


class WaitingForApproval(Postponed):
    """The task leaves its worker until a person has decided, or for `seconds`."""


class WaitingForEvent(Postponed):
    """The task leaves its worker until an event comes, or for `seconds`."""


class RetryLater(Postponed):
    """Give the running task back to the queue, to be started again after some seconds; this attempt does not count.

    Raise it in a handler, or in what it calls, when going on now makes no sense: the worker's slot is free for other
    tasks meanwhile. `seconds`: 0 or more. `reason` completes the log line "Waiting 40 s: …". Raises UsageError for
    seconds that are no number of 0 or more.
    """

    def __init__(self, seconds: float, reason: str = "the task asked to be run later") -> None:
        if not math.isfinite(seconds) or seconds < 0:
            raise UsageError(f"RetryLater takes a number of seconds, 0 or more, not {seconds}.")
        super().__init__(seconds, f"Waiting {math.ceil(seconds)} s: {reason}.")
        self.reason = reason


def _first_line(error: str | None) -> str:
    """The reason without its traceback, which `error` keeps."""
    return (error or "no reason recorded").splitlines()[0]
