"""Hooks of the journal in the SDK: places that are patched once, without effect outside a durable run.

- The default agent runner: every run inside a durable run, however it was started, gets its place in the journal.
- The choice of a turn's model, and the invocation of a function tool. The SDK's loop looks both up by name in its
  modules. Cloned agents instead would break `result.last_agent is agent`. Copied tools would break hooks and
  approvals that compare tools, and would leave the SDK's time limits outside the record.
- The SDK's decision whether a call of a function tool needs approval (`approval_policies.py`).
- The SDK's handling of a tool that cancels itself, and its actions of local tools (`local_tools.py`).
- The choice of a sandbox for an agent, which is where the SDK creates or resumes one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from agents import Model, RunResult, RunResultStreaming, RunState
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.run_internal import run_loop, tool_execution, turn_resolution
from agents.sandbox.runtime_session_manager import SandboxRuntimeSessionManager
from agents.tool import _FunctionToolInvocationResult

from agentexec.errors import AgentexecError
from agentexec.journal.recorder import Scope
from agentexec.journal.scopes import SCOPE
from agentexec.runners.openai.approval_policies import NEEDS_APPROVAL, needs_approval
from agentexec.runners.openai.guardrails import patch_guardrails
from agentexec.runners.openai.local_tools import patch_local_tools
from agentexec.runners.openai.model import JournaledModel
from agentexec.runners.openai.run import DurableRun, inherit_run_config
from agentexec.runners.openai.sandbox_sessions import ensure_session, finish_sandboxes
from agentexec.runners.openai.session import journaled_session
from agentexec.runners.openai.tools import invoke_journaled, record_canceled_call
from agentexec.runners.openai.tracing import patch_tracing

T = TypeVar("T")

RUN_MARK = "_agentexec_run"
"""Attribute of the results and states of durable runs that holds the run."""

INVOKE = "_invoke_function_tool_with_metadata"

HANDLE_FAILURE = "maybe_invoke_function_tool_failure_error_function"
"""Function with which the SDK's loop makes an output of a tool's CancelledError."""


class DurableAgentRunner(AgentRunner):
    """Wrapper of the SDK's runner, or of the one that the application has set, that enters each durable run."""

    def __init__(self, runner: AgentRunner) -> None:
        self.inner = runner

    async def run(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResult:
        with _enter_run(starting_agent, input, kwargs) as run:
            result = _mark(await self.inner.run(starting_agent, input, **kwargs), run)
            if run is not None and not result.interruptions:
                await finish_sandboxes(run)
            return result

    def run_sync(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResult:
        with _enter_run(starting_agent, input, kwargs) as run:
            return _mark(self.inner.run_sync(starting_agent, input, **kwargs), run)

    def run_streamed(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResultStreaming:
        # The asyncio task that runs it inherits the scope.
        with _enter_run(starting_agent, input, kwargs) as run:
            return _mark(self.inner.run_streamed(starting_agent, input, **kwargs), run)


@contextmanager
def _enter_run(agent: Any, input: Any, options: dict[str, Any]) -> Generator[DurableRun | None]:
    """Enter the scope of one run; `options` get its run config and session."""
    scope = SCOPE.get()
    if scope is None or not scope.durable:
        yield None
        return
    if isinstance(scope.run, DurableRun) and options.get("run_config") is None:
        options["run_config"] = inherit_run_config(scope.run.run_config)
    run = _interrupted_run(scope, agent, input) or DurableRun(
        scope, agent, input, options.get("run_config") or {}
    )
    scope.recorder.runs[scope.path, agent.name] = run
    session = options.get("session")
    if session is not None:
        # One session for the whole run, also after approvals, because it knows the items that the run has added.
        if id(session) not in run.sessions:
            run.sessions[id(session)] = journaled_session(session, run)
        options["session"] = run.sessions[id(session)]
    token = SCOPE.set(run.scope)
    try:
        yield run
    except Exception:
        # The SDK may have wrapped the error that stopped the attempt.
        run.recorder.check()
        if isinstance(scope.run, DurableRun):
            scope.run.failed_calls.add(scope.path)
        raise
    finally:
        SCOPE.reset(token)
    run.recorder.check()


def _interrupted_run(scope: Scope, agent: Any, input: Any) -> DurableRun | None:
    """Return the run that resumes from its own RunState: it must be the same one, so that its calls keep their paths.

    The SDK makes the states of agents that are tools. They carry no mark, but such a run is alone in its call.
    """
    if not isinstance(input, RunState):
        return None
    run = getattr(input, RUN_MARK, None)
    if run is None and scope.run is not None:
        run = scope.recorder.runs.get((scope.path, agent.name))
    return run if run is not None and run.recorder is scope.recorder else None


def _mark(result: T, run: DurableRun | None) -> T:
    if run is not None:
        setattr(result, RUN_MARK, run)
    return result


def state_of(result: RunResult | RunResultStreaming) -> RunState[Any]:
    """Return the state from which an interrupted run resumes as the same durable run."""
    return _mark(result.to_state(), run_of(result))


def run_of(result: RunResult | RunResultStreaming) -> DurableRun | None:
    """Return the durable run that produced a result; None outside a task."""
    return getattr(result, RUN_MARK, None)


def _get_model(get_model: Callable[..., Model], agent: Any, run_config: Any) -> Any:
    """Return the model that the SDK chooses for a turn, wrapped for the journal inside a durable run."""
    model = get_model(agent, run_config)
    scope = SCOPE.get()
    if scope is None or not isinstance(scope.run, DurableRun):
        return model
    run = scope.run
    run.active_agent = agent.name
    if run.changes is not None:
        model = run.changes.model(run.next_turn, agent.name, run_config) or model
    # One wrapper per model and run, because the SDK tells models apart by identity.
    if id(model) not in run.models:
        chosen = agent.model if run_config.model is None else run_config.model
        if run.changes is not None:
            chosen = run.changes.model_name(run.next_turn, agent.name) or chosen
        run.models[id(model)] = JournaledModel(model, run, chosen if isinstance(chosen, str) else None)
    return run.models[id(model)]


def patch_sdk() -> None:
    """Make the SDK of this process able to run durably. Repeated calls have no effect."""
    if getattr(run_loop.get_model, "func", None) is not _get_model:
        if not (
            hasattr(run_loop, "get_model")
            and hasattr(tool_execution, INVOKE)
            and hasattr(tool_execution, HANDLE_FAILURE)
            and hasattr(tool_execution, NEEDS_APPROVAL)
            and hasattr(turn_resolution, NEEDS_APPROVAL)
        ):
            raise AgentexecError(
                "This release of openai-agents cannot run durably; install one that agentexec's requirements name."
            )
        run_loop.get_model = functools.partial(_get_model, run_loop.get_model)
        invoke = getattr(tool_execution, INVOKE)
        setattr(
            tool_execution, INVOKE, functools.partial(invoke_journaled, invoke, _FunctionToolInvocationResult)
        )
        for module in (tool_execution, turn_resolution):
            check = getattr(module, NEEDS_APPROVAL)
            setattr(module, NEEDS_APPROVAL, functools.partial(needs_approval, check))
        handle_failure = getattr(tool_execution, HANDLE_FAILURE)
        setattr(tool_execution, HANDLE_FAILURE, functools.partial(record_canceled_call, handle_failure))
    patch_local_tools()
    _patch_sandboxes()
    patch_guardrails()
    patch_tracing()
    runner = get_default_agent_runner()
    if not _is_durable(runner):
        set_default_agent_runner(DurableAgentRunner(runner))


def _patch_sandboxes() -> None:
    manager: Any = SandboxRuntimeSessionManager
    if not isinstance(vars(manager)["ensure_session"], functools.partialmethod):
        manager.ensure_session = functools.partialmethod(ensure_session, manager.ensure_session)


def _is_durable(runner: Any) -> bool:
    """Return True for a DurableAgentRunner, and for a runner that wraps one."""
    while runner is not None and not isinstance(runner, DurableAgentRunner):
        runner = getattr(runner, "inner", None)
    return runner is not None
