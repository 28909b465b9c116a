"""Waiting for the verdicts on questions: in place while the task has other things to do, else off its worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentexec.db.clock import utc_now
from agentexec.errors import WaitingForApproval
from agentexec.journal.approvals import ask
from agentexec.journal.questions import Question, Verdict, earliest_expiry, waiting_message
from agentexec.journal.recorder import Recorder
from agentexec.runtime import RUNTIME


async def wait_for_verdicts(
    recorder: Recorder, questions: Sequence[Question], within: Iterable[object]
) -> list[Verdict]:
    """Return the verdicts on some questions when all are decided. `within`: the calls that wait for them.

    While something else is in progress in the task, this waits in place. Then WaitingForApproval takes the task off
    its worker.
    """
    with recorder.waits.open("approval") as wait, recorder.active_calls.suspend(within):
        async for may_leave in recorder.poll():
            now = utc_now()
            verdicts = await recorder.write_with_retry(ask, RUNTIME.engine, recorder.lease, questions, now)
            if all(verdict.decided for verdict in verdicts):
                return verdicts
            wait.ends_at = earliest_expiry(verdicts)
            if may_leave:
                raise recorder.waits.leave(WaitingForApproval, waiting_message(questions, verdicts), now)
    raise AssertionError("unreachable: poll() has no end")
