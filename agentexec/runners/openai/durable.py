"""Where the journal meets the SDK: three places of it, changed once, and unchanged in effect outside a durable run.

- the default agent runner: every run inside a durable run, however it was started, gets its place in the journal;
- the model that a turn is given, and the invocation of a function tool. Both are looked up by the SDK's loop as
  names in its modules. Cloning agents instead would break `result.last_agent is agent`, copies of tools would
  break hooks and approvals that compare tools, and would leave the SDK's time limits outside the record.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from agents import Model, RunResult, RunResultStreaming, RunState
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.run_internal import run_loop, tool_execution
from agents.tool import _FunctionToolInvocationResult

from agentexec.errors import AgentexecError
from agentexec.journal.recorder import SCOPE, Scope
from agentexec.runners.openai.model import JournaledModel
from agentexec.runners.openai.run import DurableRun, inherit_run_config
from agentexec.runners.openai.session import journaled_session
from agentexec.runners.openai.tools import invoke_journaled

T = TypeVar("T")

RUN_MARK = "_agentexec_run"
"""On results and states of durable runs: the run."""

INVOKE = "_invoke_function_tool_with_metadata"


class DurableAgentRunner(AgentRunner):
    """The SDK's runner, or the one that the application has set, with a place in the journal for each durable run."""

    def __init__(self, runner: AgentRunner) -> None:
        self.inner = runner

    async def run(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResult:
        with _entered(starting_agent, input, kwargs) as run:
            return _marked(await self.inner.run(starting_agent, input, **kwargs), run)

    def run_sync(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResult:
        with _entered(starting_agent, input, kwargs) as run:
            return _marked(self.inner.run_sync(starting_agent, input, **kwargs), run)

    def run_streamed(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResultStreaming:
        # The task that runs it takes the scope along.
        with _entered(starting_agent, input, kwargs) as run:
            return _marked(self.inner.run_streamed(starting_agent, input, **kwargs), run)


@contextmanager
def _entered(agent: Any, input: Any, options: dict[str, Any]) -> Generator[DurableRun | None]:
    """The scope of one run; `options` get what makes it durable."""
    scope = SCOPE.get()
    if scope is None or not scope.durable:
        yield None
        return
    if isinstance(scope.run, DurableRun) and options.get("run_config") is None:
        options["run_config"] = inherit_run_config(scope.run.run_config)
    run = _interrupted(scope, agent, input) or DurableRun(
        scope, agent, input, options.get("run_config") or {}
    )
    scope.recorder.runs[scope.path, agent.name] = run
    session = options.get("session")
    if session is not None:
        # One for the whole run: it knows what the run has added.
        options["session"] = run.sessions.setdefault(id(session), journaled_session(session, run))
    token = SCOPE.set(run.scope)
    try:
        yield run
    except Exception:
        # The SDK may have wrapped what stopped the attempt.
        run.recorder.check()
        raise
    finally:
        SCOPE.reset(token)
    run.recorder.check()


def _interrupted(scope: Scope, agent: Any, input: Any) -> DurableRun | None:
    """The run that goes on with a RunState of its own: the same one, so that its calls keep their places.

    States of agents that are tools are made by the SDK. They carry no mark, but such a run is alone in its call.
    """
    if not isinstance(input, RunState):
        return None
    run = getattr(input, RUN_MARK, None)
    if run is None and scope.run is not None:
        run = scope.recorder.runs.get((scope.path, agent.name))
    return run if run is not None and run.recorder is scope.recorder else None


def _marked(result: T, run: DurableRun | None) -> T:
    if run is not None:
        setattr(result, RUN_MARK, run)
    return result


def state_of(result: RunResult | RunResultStreaming) -> RunState[Any]:
    """What an interrupted run goes on from, as the same durable run."""
    return _marked(result.to_state(), run_of(result))


def run_of(result: RunResult | RunResultStreaming) -> DurableRun | None:
    """The durable run that gave a result; None outside a task."""
    return getattr(result, RUN_MARK, None)


def _get_model(get_model: Callable[..., Model], agent: Any, run_config: Any) -> Any:
    """The SDK's choice of a turn's model, through the journal."""
    model = get_model(agent, run_config)
    scope = SCOPE.get()
    if scope is None or not isinstance(scope.run, DurableRun):
        return model
    run = scope.run
    run.active_agent = agent.name
    # One for each model and run: the SDK tells models apart by identity.
    if id(model) not in run.models:
        chosen = agent.model if run_config.model is None else run_config.model
        run.models[id(model)] = JournaledModel(model, run, chosen if isinstance(chosen, str) else None)
    return run.models[id(model)]


def patch_sdk() -> None:
    """Make the SDK of this process able to run durably; once is enough, and more does no harm."""
    if getattr(run_loop.get_model, "func", None) is not _get_model:
        if not (hasattr(run_loop, "get_model") and hasattr(tool_execution, INVOKE)):
            raise AgentexecError(
                "This release of openai-agents cannot run durably; install one that agentexec's requirements name."
            )
        run_loop.get_model = functools.partial(_get_model, run_loop.get_model)
        invoke = getattr(tool_execution, INVOKE)
        setattr(
            tool_execution, INVOKE, functools.partial(invoke_journaled, invoke, _FunctionToolInvocationResult)
        )
    runner = get_default_agent_runner()
    if not _is_durable(runner):
        set_default_agent_runner(DurableAgentRunner(runner))


def _is_durable(runner: Any) -> bool:
    """True for ours, and for one that passes its runs on to ours."""
    while runner is not None and not isinstance(runner, DurableAgentRunner):
        runner = getattr(runner, "inner", None)
    return runner is not None
