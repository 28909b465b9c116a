"""Divergence: what becomes of a run that the code at hand cannot replay, by the policy of its task."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.reports import clean
from agentexec.arguments.versions import Restart, restart_of
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, JournalConflictError, ReplayDivergedError
from agentexec.journal.approvals import ask
from agentexec.journal.given_up import read_given_up
from agentexec.journal.questions import Question, Verdict, waiting_message
from agentexec.journal.recorder import Recorder
from agentexec.journal.restarts import DIVERGENCE_PATH, give_up
from agentexec.journal.waiting import FAR_FUTURE_SECONDS
from agentexec.outage import wait_out_async
from agentexec.redaction import redact
from agentexec.runtime import RUNTIME
from agentexec.task import Status, TaskDefinition

T = TypeVar("T")

RESTART_CALL = "restart"
"""Name of the call that a person is asked about."""


REQUEUED_MESSAGE = "Back on the queue to begin again."


class Resolution(NamedTuple):
    """Outcome of a divergence: an ending that puts the task back on the queue, or the reason why it ends."""

    ending: Ending | None
    refusal: str = ""


def find_divergence(recorder: Recorder) -> ReplayDivergedError | None:
    """Return the divergence that has stopped an attempt, whatever the handler has made of it.

    A conflict is not one: another branch has recorded something in the same place, which the next attempt replays.
    """
    fault = recorder.fault
    is_other = isinstance(fault, JournalConflictError) or not isinstance(fault, ReplayDivergedError)
    # An offline replay is there to tell of it.
    return None if is_other or RUNTIME.replay is not None else fault


def require_replayed(definition: TaskDefinition, recorder: Recorder) -> None:
    """Raise the divergence that a handler has swallowed, if the run is to be restarted: what it returned is not a result."""
    divergence = find_divergence(recorder)
    if divergence is not None and _policy_of(definition) is not None:
        raise divergence


def _policy_of(definition: TaskDefinition) -> Restart | None:
    return restart_of(definition.on_divergence or CONF.on_divergence)


async def resolve_divergence(
    definition: TaskDefinition, admitted: Admitted, recorder: Recorder
) -> Resolution | None:
    """Restart a run that has diverged, or ask a person, as the policy of its task says. None: it has failed as others do."""
    divergence = find_divergence(recorder)
    restart = _policy_of(definition)
    if divergence is None or restart is None:
        return None
    try:
        return await _restart(definition, admitted, recorder, divergence, restart)
    except AgentexecError:
        # The lease is lost, or this process waits no longer for the database.
        return None


async def _restart(
    definition: TaskDefinition,
    admitted: Admitted,
    recorder: Recorder,
    divergence: ReplayDivergedError,
    restart: Restart,
) -> Resolution:
    engine, lease = RUNTIME.engine, admitted.lease
    version = definition.version or CONF.worker_version
    reason = redact(str(divergence), CONF.secrets)
    given_up = await _patiently(recorder, read_given_up, engine, lease.agent_id)
    number = 1 + sum(run.version == version for run in given_up)
    if number > restart.limit:
        by = "" if version is None else f" by version {version}"
        return Resolution(None, f"it was restarted {restart.limit} time(s){by}, and has diverged again")
    if restart.ask:
        question = _question(admitted, reason, version)._replace(terms=recorder.approvals.terms())
        [verdict] = await _patiently(recorder, ask, engine, lease, [question], utc_now())
        if not verdict.approved:
            return _unapproved(admitted, question, verdict)
    tell = functools.partial(give_up, tells_effects=restart.tell_effects)
    line = f"Beginning the run again (restart {number} of {restart.limit}), as the code cannot replay it: {reason}"
    await _patiently(recorder, tell, engine, lease, reason, version, clean(line), utc_now())
    return Resolution(Ending(lease, Status.QUEUED, REQUEUED_MESSAGE, counts_as_attempt=False))


def _question(admitted: Admitted, reason: str, version: str | None) -> Question:
    arguments = {"reason": reason} if version is None else {"version": version, "reason": reason}
    text = json.dumps(arguments, ensure_ascii=False)
    # Neither a wait nor a crash changes this number, so the answer is found again. After a failure it is another question.
    number = admitted.attempt - admitted.crashes.total
    return Question(DIVERGENCE_PATH, number, "approval", RESTART_CALL, text)


def _unapproved(admitted: Admitted, question: Question, verdict: Verdict) -> Resolution:
    if verdict.decided:
        why = f": {verdict.message}" if verdict.message else ""
        return Resolution(None, f"a restart was rejected{why}")
    message = waiting_message([question], [verdict])
    waiting = Ending(
        admitted.lease,
        Status.QUEUED,
        clean(message),
        delay=FAR_FUTURE_SECONDS,
        counts_as_attempt=False,
        awaited_kinds=frozenset({"approval"}),
    )
    return Resolution(waiting)


async def _patiently(recorder: Recorder, call: Callable[..., T], *arguments: object) -> T:
    return await wait_out_async(RUNTIME.run_in_thread, call, *arguments, patience=recorder.patience)
