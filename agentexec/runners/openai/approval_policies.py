"""Policies of approvals in the SDK: calls of function tools that ask a person, or are refused, without a mark on the tool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from agents import FunctionTool

from agentexec.journal.approvals import asked_paths
from agentexec.journal.facts import fit_path
from agentexec.journal.recorder import Scope
from agentexec.journal.scopes import SCOPE
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.openai.tools import NO_INTENT_MARK
from agentexec.runtime import RUNTIME

NEEDS_APPROVAL = "function_needs_approval"
"""Name of the SDK's function in the modules of its loop."""

ASK = "require_approval"
"""Outcome with which the SDK asks."""


async def needs_approval(
    ask_sdk: Callable[..., Awaitable[Any]], function_tool: FunctionTool, context_wrapper: Any, tool_call: Any
) -> Any:
    """Return the SDK's decision about a call, or the one that a policy makes stricter."""
    decision = await ask_sdk(function_tool, context_wrapper, tool_call)
    scope = SCOPE.get()
    if scope is None or not isinstance(scope.run, DurableRun):
        return decision
    approvals = scope.recorder.approvals
    # Our own tools that record no intent only report.
    if decision.outcome != ASK and approvals.policy.tools and not hasattr(function_tool, NO_INTENT_MARK):
        risk = approvals.policy.risk_of(function_tool.qualified_name)
        if await _is_asked(scope, tool_call.call_id, by_policy=risk != "safe"):
            decision.outcome, decision.prepared = ASK, None
    if decision.outcome == ASK:
        approvals.note_tool(tool_call.call_id, function_tool.params_json_schema)
    return decision


async def _is_asked(scope: Scope, call_id: str, *, by_policy: bool) -> bool:
    """Decide whether a call is asked about. What earlier attempts did with it counts more than the policy of today."""
    recorder, run = scope.recorder, scope.run
    if not recorder.repeats:
        return by_policy
    if recorder.approvals.asked is None:
        found = await recorder.write_with_retry(asked_paths, RUNTIME.engine, recorder.lease.agent_id)
        recorder.approvals.asked = found
    if any(path in recorder.approvals.asked for path in _question_paths(run.path, call_id)):
        return True
    path = fit_path(f"{run.path}/{call_id}")
    was_made = bool(recorder.facts(path)) or recorder.has_nested_facts(path)
    return by_policy and not was_made


def _question_paths(run_path: str, call_id: str) -> Iterator[str]:
    """Yield the paths that a question about a call may have: a run inside a call asks through the outer run."""
    while run_path:
        yield fit_path(f"{run_path}/{call_id}")
        run_path = run_path.rpartition("/")[0]
