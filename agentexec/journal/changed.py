"""Changes of code that only new runs take: `ax.changed("new-step")` is true where a run gets to it live.

The answer is one for the whole task. It is recorded before it is given, at `/changed/` and the name, and what is recorded
does not change. It is False if an earlier attempt went further than the first place that asks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from agentexec.arguments.checks import check_text
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.errors import UsageError
from agentexec.journal.facts import ANY_INPUT, Fact, FactKind, fit_path
from agentexec.journal.recorder import Recorder
from agentexec.journal.scopes import current_scope
from agentexec.journal.stores import journal_store
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME

CHANGED_PATH = "/changed/"
"""Start of the places of the answers. No run or call has a path that begins with a slash."""

MAX_NAME = 100


class Changed:
    """Answer of `ax.changed`, which must be awaited."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self._name = name

    def __await__(self) -> Generator[Any, None, bool]:
        """Find out whether the run takes the new branch."""
        return _find_out(self._recorder, self._name).__await__()

    def __bool__(self) -> bool:
        raise UsageError(
            f'Write `await ax.changed("{self._name}")`, or `ax.changed_sync("{self._name}")` in a plain function.'
        )


def changed(name: str) -> Changed:
    """Tell whether the running task takes a branch that its code has been given while older runs were in flight.

    `if await ax.changed("fraud-check"):` is true in a run that gets there for the first time, and stays true in all of its
    attempts. It is false in a run that an earlier release of the code has taken further than this place, so that the run is
    replayed as it was recorded. Everywhere in one task the same name has the same answer. Take the branch out, with its
    name, when no older run is left.

    Args:
        name: Name of the change, 1 to 100 characters.

    Returns:
        What to await; it gives True for the new branch. Use `changed_sync` in plain functions.

    Raises:
        UsageError: The code does not run inside a task, or the name is not a short text.
        LeaseLostError: The task now belongs to another worker, or was canceled.
    """
    return Changed(_recorder("changed", name), name)


def changed_sync(name: str) -> bool:
    """Tell whether the running task takes a new branch: `changed` for plain functions, with the same argument and errors."""
    recorder = _recorder("changed_sync", name)
    recorder.check()
    return wait_out(decide_change, recorder, name)


def _recorder(function: str, name: str) -> Recorder:
    check_text("The name of a change", name, MAX_NAME)
    scope = current_scope()
    if scope is None:
        raise UsageError(f"ax.{function}() is for code inside a task; elsewhere there is no run to replay.")
    return scope.recorder


async def _find_out(recorder: Recorder, name: str) -> bool:
    recorder.check()
    known = recorder.changes.get(name)
    return await recorder.write_with_retry(decide_change, recorder, name) if known is None else known


def decide_change(recorder: Recorder, name: str) -> bool:
    """Return the answer of a task about a change, and record a new one. Blocks; may be called again after UnavailableError."""
    with recorder.changes_lock:
        if name not in recorder.changes:
            recorder.changes[name] = _decide(recorder, fit_path(f"{CHANGED_PATH}{name}"))
        return recorder.changes[name]


def _decide(recorder: Recorder, path: str) -> bool:
    recorder.load()
    if facts := recorder.facts(path):
        return facts[0].value != "false"
    is_new = not _went_further(recorder)
    if RUNTIME.replay is not None:
        # Nothing is recorded offline. A run that has ended without an answer did not take the branch.
        return is_new and RUNTIME.replay.is_open
    fact = Fact(path, 0, FactKind.OUTCOME, ANY_INPUT, "true" if is_new else "false")
    journal_store().append(recorder.lease, fact, None, utc_now())
    recorder.add_fact(fact)
    return is_new


def _went_further(recorder: Recorder) -> bool:
    """Return True if an earlier attempt has recorded something that this one has not come to yet."""
    if not recorder.repeats:
        return False
    if not recorder.passed.has_all(recorder.earlier_facts):
        return True
    with reading(RUNTIME.engine) as connection:
        return not recorder.passed.has_all_rows(connection, recorder.lease.agent_id)
