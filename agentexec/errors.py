"""Errors that agentexec raises, and the exit code of the command line for each.

    AgentexecError                  1   base of all
    ├── SettingsError               2   a setting has an invalid value
    ├── UsageError                  2   a call or command is invalid
    │   ├── ModuleLoadError         2   the worker module is missing, broken, or has no pool
    │   ├── BackendInvalidError     2   the state backend module lacks something
    │   ├── UnknownTaskError        2   no task has that name
    │   ├── ContextInvalidError     2   a context does not fit its task's type
    │   └── PayloadTooLargeError    2   a context, metadata or result is above the size limit
    ├── UnavailableError            3   Redis or the database cannot be reached
    ├── SchemaError                 5   the database lacks a migration, or is newer than this release
    ├── ActivityNotFoundError       1   no activity has that agent_id
    ├── ResultExpiredError          1   the task completed, but its result was removed after its time to live
    ├── ConversationBusyError       1   a conversation takes no further message now
    ├── ConversationNotFoundError   1   no conversation has that id
    ├── TurnInterruptedError        1   another message interrupts the turn of a conversation
    ├── LeaseLostError              1   the worker no longer holds the task
    ├── ReplayDivergedError         1   a replay differs from the journal (also `ax.ReplayDiverged`)
    │   └── JournalConflictError    1   two facts have the same place in the journal
    ├── CallInterruptedError        1   a step was interrupted, and its policy does not allow a second run
    ├── BudgetExceededError         1   a model call does not fit into a budget
    ├── BackgroundResponseError     1   a background response was canceled, or is gone from its provider
    ├── EncryptionKeyError          1   a stored value needs a key that this process lacks, or is damaged
    ├── PayloadLostError            1   a large value is missing from the payload store, or damaged
    ├── SandboxLostError            1   a task cannot resume, because the sandbox of its agent is gone
    ├── ApprovalNotFoundError       1   no call with that id has asked for approval
    ├── ApprovalRuleNotFoundError   1   no rule for approvals has that id
    ├── WaitDeadlockError           1   a task waits for one that cannot start before it has ended
    ├── AccessDeniedError           1   the caller of the HTTP API may not do this
    ├── TokenInvalidError           1   a read token is forged, damaged or expired
    └── TaskEndedError              1   a task ended without a result
        ├── TaskFailedError         1   the task failed, with no retries left
        └── TaskCanceledError       1   the task was canceled

    Postponed                           base of those that give a task back to the queue
    ├── RetryLater                      for some seconds
    ├── WaitingForApproval              until a person has decided
    └── WaitingForEvent                 until an event arrives

A `Postponed` is not an error: it derives from BaseException, so `except Exception` in user or SDK code does not swallow
it.

A message is one sentence that says what is wrong and what to do. It never contains a password or a key.
"""

from __future__ import annotations

import math
from uuid import UUID

MAX_POSTPONED = 3_000_000_000.0
"""Longest time in seconds, about 95 years, for which a task goes back to the queue."""


class AgentexecError(Exception):
    """Base of every error that agentexec raises; catch it to handle them all."""

    exit_code = 1


class SettingsError(AgentexecError):
    """A setting has an invalid value; correct the variable that the message names."""

    exit_code = 2


class UsageError(AgentexecError):
    """A call or command is invalid; the message says what to write instead."""

    exit_code = 2


class ModuleLoadError(UsageError):
    """The worker module cannot be imported, or has no pool; correct the module or the name given for it."""


class BackendInvalidError(UsageError):
    """The module named by AGENTEXEC_STATE_BACKEND is incomplete; add what the message names."""


class UnknownTaskError(UsageError):
    """No task has the given name; use a registered name, or register a handler under this one."""


class ContextInvalidError(UsageError):
    """A context does not fit its task's context type; correct the field that the message names."""


class PayloadTooLargeError(UsageError):
    """A context, metadata or result exceeds AGENTEXEC_MAX_PAYLOAD_BYTES; pass a reference, or raise it."""


class UnavailableError(AgentexecError):
    """Redis or the database cannot be reached; try again once it is back."""

    exit_code = 3
    contended = False
    """True if other connections hold what is needed, such as a lock; they may belong to this very process."""


class SchemaError(AgentexecError):
    """The database's schema does not fit this release; run `agentexec migrate`, or upgrade agentexec."""

    exit_code = 5


class ActivityNotFoundError(AgentexecError):
    """No activity has the given agent_id; it is wrong, or the activity was pruned."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(f"There is no activity with agent_id {agent_id}.")
        self.agent_id = agent_id


class ResultExpiredError(AgentexecError):
    """The result was removed after AGENTEXEC_RESULT_TTL seconds; raise that setting to keep results longer."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(
            f"The result of task {agent_id} has expired; raise AGENTEXEC_RESULT_TTL to keep results longer."
        )
        self.agent_id = agent_id


class ConversationBusyError(AgentexecError):
    """A conversation takes no further message now; wait until its turn has ended, or send with another `if_busy=`."""

    def __init__(self, conversation: str, reason: str) -> None:
        super().__init__(f"The conversation {conversation!r} {reason}")
        self.conversation = conversation


class ConversationNotFoundError(AgentexecError):
    """No conversation has the given id; it is wrong, or the conversation was deleted, or has not begun."""

    def __init__(self, conversation: str) -> None:
        super().__init__(f"There is no conversation {conversation!r}.")
        self.conversation = conversation


class TurnInterruptedError(AgentexecError):
    """Another message interrupts this turn of a conversation, which ends here; what it has recorded is kept."""

    def __init__(self, conversation: str) -> None:
        super().__init__(
            f"A message interrupts this turn of the conversation {conversation!r}; the next turn has it."
        )
        self.conversation = conversation


class LeaseLostError(AgentexecError):
    """The worker no longer holds the task, and nothing was recorded; let this attempt end."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(
            f"This worker no longer holds task {agent_id}: another worker has it, or it was canceled or has ended; "
            "this attempt stops."
        )
        self.agent_id = agent_id


class ReplayDivergedError(AgentexecError):
    """A handler that runs again made another call than before; make the same calls in the same order.

    Their inputs must be the same too. The message names the place in the journal and the difference.
    """

    def __init__(self, message: str, *, agent_id: UUID, path: str) -> None:
        super().__init__(message)
        self.agent_id = agent_id
        self.path = path


ReplayDiverged = ReplayDivergedError


class JournalConflictError(ReplayDivergedError):
    """Two different facts have the same place in the journal; give each call of a run its own id."""

    def __init__(self, agent_id: UUID, path: str) -> None:
        super().__init__(
            f"Task {agent_id} recorded two different facts at {path}; give each call of a run its own id.",
            agent_id=agent_id,
            path=path,
        )


class CallInterruptedError(AgentexecError):
    """A step with the policy "fail" was interrupted; find out whether it took effect, and handle this error."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The step {name} was cut off before it ended, and it is unknown whether it took effect; catch this error "
            'to find out, or give the step policy="idempotent" if it may run twice.'
        )
        self.name = name


class BudgetExceededError(AgentexecError):
    """A model call does not fit into a budget, and was not made; raise the budget, and retry the task.

    `spent`, `reserved` and `limit` are dollars, or tokens for a budget in tokens.
    """

    def __init__(
        self, message: str, *, agent_id: UUID, budget: str, spent: float, reserved: float, limit: float
    ) -> None:
        super().__init__(message)
        self.agent_id = agent_id
        self.budget = budget
        self.spent = spent
        self.reserved = reserved
        self.limit = limit


class BackgroundResponseError(AgentexecError):
    """A background response was canceled at its provider, or is gone from it, and so is the one asked for instead."""


class EncryptionKeyError(AgentexecError):
    """A stored value needs a key that AGENTEXEC_ENCRYPTION_KEYS lacks here, or it is damaged; the message names the key's fingerprint."""

    def __init__(self, fingerprint: str, *, is_damaged: bool = False) -> None:
        super().__init__(
            f"A value that the key with the fingerprint {fingerprint} has encrypted is damaged; restore it from a backup."
            if is_damaged
            else f"A value is encrypted with the key whose fingerprint is {fingerprint}, which this process lacks; add the key to "
            "AGENTEXEC_ENCRYPTION_KEYS."
        )
        self.fingerprint = fingerprint
        """Fingerprint of the key: the beginning of its SHA-256 digest."""


class PayloadLostError(AgentexecError):
    """A large value is missing from the payload store, or damaged; the message names it. Restore it from a backup of the store."""

    def __init__(self, value: str, reason: str) -> None:
        super().__init__(f"A large value cannot be read, because {reason}: {value}.")


class SandboxLostError(AgentexecError):
    """A task cannot resume, because its agent's sandbox is gone or on another host; enqueue the task again."""

    def __init__(self, message: str, *, agent_id: UUID) -> None:
        super().__init__(message)
        self.agent_id = agent_id


class ApprovalNotFoundError(AgentexecError):
    """No call with that id has asked for approval; `agentexec approvals` lists the calls that wait."""

    def __init__(self, agent_id: UUID, call_id: str) -> None:
        super().__init__(
            f"Task {agent_id} has not asked for approval of a call {call_id}; `agentexec approvals` lists those that "
            "wait."
        )
        self.agent_id = agent_id
        self.call_id = call_id


class ApprovalRuleNotFoundError(AgentexecError):
    """No rule with that id approves calls; `agentexec approvals rules` lists those in force."""

    def __init__(self, rule_id: UUID) -> None:
        super().__init__(
            f"There is no rule {rule_id} that approves calls; `agentexec approvals rules` lists those in force."
        )
        self.rule_id = rule_id


class WaitDeadlockError(AgentexecError):
    """A task waits for a task that cannot start before the first has ended; enqueue it without waiting, or change its key."""


class AccessDeniedError(AgentexecError):
    """The caller of the HTTP API lacks the right to do this; give it the right in `caller=` if it should."""


class TokenInvalidError(AgentexecError):
    """A read token is forged, damaged or expired; get a new one from the application."""


class TaskEndedError(AgentexecError):
    """A task whose result was asked for ended without one; see its `error` and its log."""

    def __init__(
        self, message: str, *, task_name: str, agent_id: UUID, error: str | None, attempts: int
    ) -> None:
        super().__init__(message)
        self.task_name = task_name
        self.agent_id = agent_id
        self.error = error
        self.attempts = attempts


class TaskFailedError(TaskEndedError):
    """A task failed with no retries left; see its `error`, and put it back with `agentexec retry`."""

    def __init__(self, *, task_name: str, agent_id: UUID, error: str | None, attempts: int) -> None:
        super().__init__(
            f"Task {task_name} ({agent_id}) failed after {attempts} attempt(s): {_first_line(error)}",
            task_name=task_name,
            agent_id=agent_id,
            error=error,
            attempts=attempts,
        )


class TaskCanceledError(TaskEndedError):
    """A task was canceled, or expired; put it back with `agentexec retry` if it should run after all."""

    def __init__(self, *, task_name: str, agent_id: UUID, error: str | None, attempts: int) -> None:
        super().__init__(
            f"Task {task_name} ({agent_id}) was canceled.{' ' + _first_line(error) if error else ''}",
            task_name=task_name,
            agent_id=agent_id,
            error=error,
            attempts=attempts,
        )


class Postponed(BaseException):
    """Signal that the running task goes back to the queue for some seconds. The attempt does not count.

    A BaseException, so `except Exception` in user or SDK code does not swallow it.
    """

    def __init__(self, seconds: float, message: str, waiting_for: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.waiting_for = waiting_for
        """Kinds of answers that the task waits for. It continues as soon as one of them arrives."""


class WaitingForApproval(Postponed):
    """Signal that the running task waits until a person has decided, for `seconds` at most."""


class WaitingForEvent(Postponed):
    """Signal that the running task waits for an event, for `seconds` at most."""


class RetryLater(Postponed):
    """Signal that the running task goes back to the queue, and starts again later. The attempt does not count.

    Raise it in a handler, or in a function that it calls, when the task cannot continue now. The worker's slot is free
    for other tasks until then.

    Args:
        seconds: Seconds until the task may start again, 0 or more.
        reason: End of the log line "Waiting 40 s: …".

    Raises:
        UsageError: `seconds` is negative, not finite, or more than 95 years.
    """

    def __init__(self, seconds: float, reason: str = "the task asked to be run later") -> None:
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 <= seconds <= MAX_POSTPONED:
            # A huge integer cannot even be written out.
            is_short = isinstance(seconds, float) or (is_number and abs(seconds) < 10**20)
            got = f"{seconds:g}" if is_short else f"this {type(seconds).__name__}"
            raise UsageError(f"RetryLater needs seconds= from 0 to {MAX_POSTPONED:.0f}, not {got}.")
        super().__init__(seconds, f"Waiting {math.ceil(seconds)} s: {reason}.")
        self.reason = reason


def _first_line(error: str | None) -> str:
    """Return the reason without its traceback, which `error` keeps."""
    return (error or "no reason recorded").splitlines()[0]
