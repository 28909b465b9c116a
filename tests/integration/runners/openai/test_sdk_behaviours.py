"""Behaviors of the SDK's Runner: each is the same on the plain SDK, durable, and cut at every record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner
from agents.exceptions import AgentsException
from agents.testing import ScriptedModel

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask
from tests.integration.runners.openai.sdk_behaviors import BEHAVIORS, IN_MEMORY, NESTED, Conversation, Scene

EARLIER: list[Any] = [{"role": "user", "content": f"Earlier {number}."} for number in range(3)]


@pytest.fixture(autouse=True)
def database(sqlite_tables: str) -> Iterator[None]:
    ax.configure(database_url=sqlite_tables)
    yield
    RUNTIME.close()


async def observe(runner: Any, streamed: bool, scene: Scene, agent: Agent[Any]) -> dict[str, Any]:
    """Run an agent; return what a user sees of it, also if it fails."""
    scene.options["run_config"] = RunConfig(model=scene.model, tracing_disabled=True, **scene.config)
    events: list[Any] = []
    try:
        if streamed:
            result = runner.run_streamed(agent, "Go.", **scene.options)
            result = result if runner is Runner else await result
            async for event in result.stream_events():
                events.append(
                    getattr(event, "name", None) or getattr(getattr(event, "data", None), "type", event.type)
                )
        else:
            result = await runner.run(agent, "Go.", **scene.options)
    except AgentsException as error:
        seen = {"error": (type(error), str(error)), "run": error.run_data}
        context = error.run_data.context_wrapper if error.run_data else None
    else:
        seen = {"output": result.final_output, "input": result.to_input_list(), "run": result}
        seen["last"] = result.last_response_id
        context = result.context_wrapper
    run = seen.pop("run")
    if run is not None:
        seen |= {
            "items": [item.type for item in run.new_items],
            "agent": run.last_agent.name if run.last_agent else None,
            "responses": [(item.output, item.usage, item.response_id) for item in run.raw_responses],
            "guardrails": [
                (type(item).__name__, item.guardrail.get_name(), item.output)
                for name in ("input", "output", "tool_input", "tool_output")
                for item in getattr(run, f"{name}_guardrail_results", [])
            ],
        }
    if context is not None:
        seen |= {"usage": context.usage, "context": context.context}
    return seen | {"events": events, "log": scene.log, "session": await scene.session.all_items()}


def asked(model: ScriptedModel) -> list[Any]:
    """Return what the model was given in each call."""
    return [
        (
            call.system_instructions,
            call.input,
            call.model_settings.tool_choice,
            sorted(tool.name for tool in call.tools),
            [item.tool_name for item in call.handoffs],
            call.previous_response_id,
            call.conversation_id,
            call.prompt,
        )
        for call in model.calls
    ]


@pytest.mark.parametrize(
    "streamed",
    [pytest.param(False, id="run"), pytest.param(True, id="run_streamed", marks=pytest.mark.thorough)],
)
@pytest.mark.parametrize("name", BEHAVIORS)
async def test_a_behavior_is_the_same_plain_durable_and_cut_at_every_record(
    name: str, streamed: bool
) -> None:
    turns, make = BEHAVIORS[name]
    task = ReplayableTask()

    async def conversation() -> Conversation:
        session = Conversation(task.journal)
        await session.add_items(EARLIER)
        return session

    plain_scene = Scene(ScriptedModel(turns), [], await conversation())
    plain = await observe(Runner, streamed, plain_scene, make(plain_scene))
    questions, made = asked(plain_scene.model), sorted(plain_scene.calls)

    session = await conversation()
    runner = ax.OpenAIRunner(task.agent_id)

    async def attempt(recorded: int = 0) -> Scene:
        scene = Scene(ScriptedModel(turns[recorded:]), [], session)
        agent = make(scene)
        assert await task.attempt(lambda: observe(runner, streamed, scene, agent)) == plain
        assert asked(scene.model) == questions[recorded:]
        return scene

    assert sorted((await attempt()).calls) == made
    lengths = [*session.lengths]
    # Without the first record it is a first attempt.
    while len(rows := task.journal()) > 1:
        task.delete_entries([rows[-1][:2]])
        kept = task.journal()
        await session.cut(len(kept), lengths)
        scene = await attempt(sum(kind == "model" for _, _, kind in kept))
        ended = [
            path for path, _, kind in kept if kind == "outcome" and not path.endswith((IN_MEMORY, NESTED))
        ]
        assert len(scene.calls) == len(made) - len(ended)
        task.delete_entries([row[:2] for row in task.journal() if row not in kept])
