"""Table of the SDK's behaviors: per row the model's turns, and the agent and options that show the behavior."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, get_origin

from agents import (
    Agent,
    AgentHooks,
    CustomTool,
    GuardrailFunctionOutput,
    ModelResponse,
    ModelSettings,
    RunConfig,
    RunContextWrapper,
    RunErrorHandlerResult,
    RunHooks,
    Runner,
    SessionSettings,
    SQLiteSession,
    StopAtTools,
    ToolGuardrailFunctionOutput,
    ToolsToFinalOutputResult,
    Usage,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.run import CallModelData, ModelInputData
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import (
    ResponseCustomToolCall,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseReasoningItem,
)
from openai.types.responses.response_reasoning_item import Summary
from pydantic import BaseModel

import agentexec as ax


class Answer(BaseModel):
    value: int


class Reason(BaseModel):
    why: str


class Conversation(SQLiteSession):
    """A session that knows how long it was at each point of the journal."""

    def __init__(self, journal: Callable[[], Sequence[Any]]) -> None:
        super().__init__("s")
        self._journal = journal
        self.lengths: list[tuple[int, int]] = []

    async def add_items(self, items: list[Any]) -> None:
        await super().add_items(items)
        self.lengths.append((len(self._journal()), len(await self.all_items())))

    async def all_items(self) -> list[Any]:
        return await self.get_items(limit=10_000)

    async def cut(self, records: int, lengths: Sequence[tuple[int, int]]) -> None:
        """Remove what was added after so many records of the journal."""
        length = max((length for count, length in lengths if count <= records), default=0)
        while len(await self.all_items()) > length:
            await self.pop_item()


@dataclasses.dataclass
class Scene:
    """Everything that one run of a behavior uses. An attempt has a new one, as in a new process."""

    model: ScriptedModel
    calls: list[str]
    """Calls of recorded tools, over all attempts."""
    session: Conversation
    log: list[Any] = dataclasses.field(default_factory=list)
    """Calls of the application's other code: a replay calls it again."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)

    def tool(self, function: Callable[..., Any], **options: Any) -> Any:
        return ax.tool_policy("idempotent")(function_tool(function, **options))

    def __post_init__(self) -> None:
        self.look_tool = self.look()

    def look(self, **options: Any) -> Any:
        async def look(topic: str) -> str:
            self.calls.append(topic)
            return f"{topic}: 42"

        return self.tool(look, **options)

    def broken(self, **options: Any) -> Any:
        async def broken() -> str:
            self.calls.append("broken")
            raise ValueError("broken")

        return self.tool(broken, **options)

    def agent(self, name: str = "A", **options: Any) -> Agent[Any]:
        return Agent(name, **{"model": self.model, "tools": [self.look_tool], **options})

    def note(self, *entry: Any) -> None:
        self.log.append(entry)


def call(name: str, call_id: str, **arguments: Any) -> Any:
    return function_call(name, arguments, call_id=call_id)


IN_MEMORY, NESTED = "in_memory", "nested"
"""Ids of a call that every attempt makes again, and of one that is an agent's run."""

CALL = [call("look", "a", topic="a")]
PAIR = [call("look", topic, topic=topic) for topic in "bc"]
BROKEN = [call("broken", "x")]
HAND_OFF = [call("transfer_to_b", "h")]
DONE = [assistant_message("Done.")]
REASONING = ResponseReasoningItem(
    id="rs_1", type="reasoning", summary=[Summary(text="Look first.", type="summary_text")]
)
REFUSAL = ResponseOutputMessage(
    id="m",
    type="message",
    role="assistant",
    status="completed",
    content=[ResponseOutputRefusal(type="refusal", refusal="I will not.")],
)
QUERY = ResponseCustomToolCall(type="custom_tool_call", call_id="q", name="query", input="select 1")


def response(output: list[Any], number: int) -> ModelResponse:
    """Return a response with an id and tokens of its own."""
    usage = Usage(requests=1, input_tokens=10 * number, output_tokens=number, total_tokens=11 * number)
    return ModelResponse(output=output, usage=usage, response_id=f"resp_{number}")


NUMBERED = [response(CALL, 1), response(DONE, 2)]

Make = Callable[[Scene], Agent[Any]]

BEHAVIORS: dict[str, tuple[list[Any], Make]] = {
    "tool": ([CALL, DONE], lambda s: s.agent()),
    "parallel tools": ([PAIR, DONE], lambda s: s.agent()),
    "several turns": ([CALL, PAIR, DONE], lambda s: s.agent()),
    "tool error": ([BROKEN, DONE], lambda s: s.agent(tools=[s.broken()])),
    "stop on first tool": ([CALL], lambda s: s.agent(tool_use_behavior="stop_on_first_tool")),
    "stop at tools": (
        [CALL],
        lambda s: s.agent(tool_use_behavior=StopAtTools(stop_at_tool_names=["look"])),
    ),
    "output type": ([CALL, [assistant_message('{"value": 7}')]], lambda s: s.agent(output_type=Answer)),
    "output that is not of its type": ([DONE], lambda s: s.agent(output_type=Answer)),
    "tool choice": ([CALL, DONE], lambda s: s.agent(model_settings=ModelSettings(tool_choice="required"))),
    "tool choice that is not reset": (
        [CALL, DONE],
        lambda s: s.agent(model_settings=ModelSettings(tool_choice="required"), reset_tool_choice=False),
    ),
    "dynamic instructions": (
        [CALL, DONE],
        lambda s: s.agent(instructions=lambda context, agent: f"Be {agent.name}."),
    ),
    "handoff": ([CALL, HAND_OFF, PAIR, DONE], lambda s: s.agent(handoffs=[s.agent("b")])),
    "handoff with filter": (
        [CALL, HAND_OFF, DONE],
        lambda s: s.agent(
            handoffs=[
                handoff(
                    s.agent("b"),
                    input_filter=lambda data: dataclasses.replace(data, pre_handoff_items=()),
                )
            ]
        ),
    ),
    "reasoning": ([[REASONING, *CALL], [REASONING, *DONE]], lambda s: s.agent()),
    "usage per request": (NUMBERED, lambda s: s.agent()),
    "custom failure text": (
        [BROKEN, DONE],
        lambda s: s.agent(tools=[s.broken(failure_error_function=lambda c, e: f"No: {e}")]),
    ),
    "tool error that ends the run": (
        [BROKEN],
        lambda s: s.agent(tools=[s.broken(failure_error_function=None)]),
    ),
    "approval that is not needed": (
        [CALL, DONE],
        lambda s: s.agent(tools=[s.look(needs_approval=_is_secret)]),
    ),
    "nested agent": (
        [[call("ask", NESTED, input="Look.")], CALL, DONE, DONE],
        lambda s: s.agent(tools=[s.agent("N").as_tool("ask", "Ask.")]),
    ),
}


def behavior(name: str, *turns: Any) -> Callable[[Make], Make]:
    """Add a row to the table; the function sets what the run uses, and returns its agent."""

    def add(make: Make) -> Make:
        BEHAVIORS[name] = ([*turns], make)
        return make

    return add


async def _is_secret(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
    return arguments["topic"] == "secret"


def _guarded(scene: Scene, trips: str = "") -> Agent[Any]:
    @input_guardrail(run_in_parallel=False)
    def checks_input(context: Any, agent: Agent[Any], input: Any) -> GuardrailFunctionOutput:
        scene.note("input", input)
        return GuardrailFunctionOutput(output_info="in", tripwire_triggered=trips == "input")

    @output_guardrail
    def checks_output(context: Any, agent: Agent[Any], output: Any) -> GuardrailFunctionOutput:
        scene.note("output", output)
        return GuardrailFunctionOutput(output_info="out", tripwire_triggered=trips == "output")

    return scene.agent(input_guardrails=[checks_input], output_guardrails=[checks_output])


BEHAVIORS["guardrails that pass"] = ([CALL, DONE], _guarded)
BEHAVIORS["input guardrail that trips"] = ([], lambda s: _guarded(s, "input"))
BEHAVIORS["output guardrail that trips"] = ([CALL, DONE], lambda s: _guarded(s, "output"))


def _guarded_tool(scene: Scene, verdict: Callable[[str], ToolGuardrailFunctionOutput]) -> Agent[Any]:
    @tool_input_guardrail
    def before(data: Any) -> ToolGuardrailFunctionOutput:
        scene.note("before", data.context.tool_arguments)
        return verdict("before")

    @tool_output_guardrail
    def after(data: Any) -> ToolGuardrailFunctionOutput:
        scene.note("after", data.output)
        return verdict("after")

    return scene.agent(tools=[scene.look(tool_input_guardrails=[before], tool_output_guardrails=[after])])


def _unless(place: str, otherwise: ToolGuardrailFunctionOutput) -> Callable[[str], Any]:
    return lambda at: otherwise if at == place else ToolGuardrailFunctionOutput.allow(at)


REJECT = ToolGuardrailFunctionOutput.reject_content("Not this.")
RAISE = ToolGuardrailFunctionOutput.raise_exception("Stop.")
for _name, _verdict in {
    "tool guardrails that allow": _unless("", REJECT),
    "tool input guardrail that rejects": _unless("before", REJECT),
    "tool output guardrail that rejects": _unless("after", REJECT),
}.items():
    BEHAVIORS[_name] = ([CALL, DONE], lambda s, verdict=_verdict: _guarded_tool(s, verdict))
BEHAVIORS["tool input guardrail that raises"] = ([CALL], lambda s: _guarded_tool(s, _unless("before", RAISE)))
BEHAVIORS["tool output guardrail that raises"] = ([CALL], lambda s: _guarded_tool(s, _unless("after", RAISE)))


def _noting(kind: Any, scene: Scene, label: str) -> Any:
    """Return hooks of a kind whose every method notes its call."""

    def method(name: str) -> Any:
        async def note(self: Any, *args: Any, **kwargs: Any) -> None:
            values = [*args, *kwargs.values()]
            scene.note(label, name, [getattr(value, "name", None) for value in values])

        return note

    methods = {name: method(name) for name in dir(kind) if name.startswith("on_")}
    return type(label, (get_origin(kind),), methods)()


@behavior("hooks", CALL, HAND_OFF, DONE)
def _(scene: Scene) -> Agent[Any]:
    scene.options["hooks"] = _noting(RunHooks, scene, "run")
    second = scene.agent("b", hooks=_noting(AgentHooks, scene, "b"))
    return scene.agent(hooks=_noting(AgentHooks, scene, "A"), handoffs=[second])


@behavior("session", CALL, DONE)
def _(scene: Scene) -> Agent[Any]:
    scene.options["session"] = scene.session
    return scene.agent()


@behavior("session with a limit", CALL, DONE)
def _(scene: Scene) -> Agent[Any]:
    scene.session.session_settings = SessionSettings(limit=2)
    scene.options["session"] = scene.session
    return scene.agent()


@behavior("session with an input callback", CALL, DONE)
def _(scene: Scene) -> Agent[Any]:
    scene.options["session"] = scene.session
    scene.config["session_input_callback"] = lambda history, new: [*history[:1], *new]
    return scene.agent()


@behavior("max turns", CALL)
def _(scene: Scene) -> Agent[Any]:
    scene.options["max_turns"] = 1
    return scene.agent()


@behavior("max turns with a handler", CALL)
def _(scene: Scene) -> Agent[Any]:
    scene.options |= {"max_turns": 1, "error_handlers": {"max_turns": _handler(scene, "Enough.")}}
    return scene.agent()


@behavior("refusal with a handler", [REFUSAL])
def _(scene: Scene) -> Agent[Any]:
    scene.options["error_handlers"] = {"model_refusal": _handler(scene, Answer(value=0))}
    return scene.agent(output_type=Answer)


def _handler(scene: Scene, output: Any) -> Any:
    def handle(data: Any) -> RunErrorHandlerResult:
        run = data.run_data
        scene.note(type(data.error).__name__, run.history, run.output, run.last_agent.name)
        return RunErrorHandlerResult(final_output=output)

    return handle


@behavior("nested agent with an extractor", [call("ask", NESTED, input="Look.")], DONE, DONE)
def _(scene: Scene) -> Agent[Any]:
    async def extract(result: Any) -> str:
        scene.note("extract", result.to_input_list())
        return f"{result.final_output} ({len(result.new_items)})"

    nested = scene.agent("N", tools=[]).as_tool("ask", "Ask.", custom_output_extractor=extract)
    return scene.agent(tools=[nested])


@behavior("nested agent that fails", [call("ask", NESTED, input="Look.")], CALL, DONE)
def _(scene: Scene) -> Agent[Any]:
    return scene.agent(tools=[scene.agent("N").as_tool("ask", "Ask.", max_turns=1)])


@behavior(
    "nested agent that fails around others",
    [call("ask", NESTED, input="Look.")],
    [call("ask_deep", f"deep_{NESTED}", input="Look deep."), call("start", "s")],
    DONE,
    DONE,
    DONE,
)
def _(scene: Scene) -> Agent[Any]:
    started = asyncio.Event()

    async def start() -> str:
        await started.wait()
        scene.calls.append("start")
        config = RunConfig(tracing_disabled=True)
        return str((await Runner.run(scene.agent("T"), "Start.", run_config=config)).final_output)

    async def let_start(result: Any) -> str:
        started.set()
        return str(result.final_output)

    deep = scene.agent("D").as_tool("ask_deep", "Ask.", custom_output_extractor=let_start)
    nested = scene.agent("N", tools=[deep, scene.tool(start)])
    return scene.agent(tools=[nested.as_tool("ask", "Ask.", max_turns=1)])


@behavior("dynamic prompt", CALL, DONE)
def _(scene: Scene) -> Agent[Any]:
    return scene.agent(prompt=lambda data: {"id": "p", "variables": {"name": data.agent.name}})


@behavior("filter of the model's input", CALL, DONE)
def _(scene: Scene) -> Agent[Any]:
    def shorten(data: CallModelData[Any]) -> ModelInputData:
        scene.note("filter", data.model_data.input)
        return ModelInputData(input=data.model_data.input[-2:], instructions="Short.")

    scene.config["call_model_input_filter"] = shorten
    return scene.agent()


@behavior("tools and handoffs that are enabled later", CALL, HAND_OFF, DONE)
def _(scene: Scene) -> Agent[Any]:
    def later(context: RunContextWrapper[Any], agent: Any) -> bool:
        return context.usage.requests > 0

    extra = scene.tool(lambda: "", name_override="extra", is_enabled=later)
    return scene.agent(tools=[scene.look_tool, extra], handoffs=[handoff(scene.agent("b"), is_enabled=later)])


@behavior("previous response", *NUMBERED)
def _(scene: Scene) -> Agent[Any]:
    scene.options["previous_response_id"] = "resp_0"
    return scene.agent()


@behavior("previous response by itself", *NUMBERED)
def _(scene: Scene) -> Agent[Any]:
    scene.options["auto_previous_response_id"] = True
    return scene.agent()


@behavior("conversation on the server", *NUMBERED)
def _(scene: Scene) -> Agent[Any]:
    scene.options["conversation_id"] = "conv_1"
    return scene.agent()


@behavior("context that a tool changes", [call("remember", IN_MEMORY, word="x")], CALL, DONE)
def _(scene: Scene) -> Agent[Any]:
    @ax.tool_policy("in_memory")
    @function_tool
    def remember(context: RunContextWrapper[Any], word: str) -> str:
        context.context.append(word)
        return word

    scene.options["context"] = []
    return scene.agent(tools=[scene.look_tool, remember], instructions=lambda c, agent: f"Words: {c.context}")


@behavior("tool timeout", [call("slow", "t")], DONE)
def _(scene: Scene) -> Agent[Any]:
    async def slow() -> str:
        scene.calls.append("slow")
        return await asyncio.get_running_loop().create_future()

    return scene.agent(tools=[scene.tool(slow, timeout=0.01)])


@behavior("tool timeout that ends the run", [call("slow", "t")])
def _(scene: Scene) -> Agent[Any]:
    async def slow() -> str:
        scene.calls.append("slow")
        return await asyncio.get_running_loop().create_future()

    return scene.agent(tools=[scene.tool(slow, timeout=0.01, timeout_behavior="raise_exception")])


@behavior("handoff with input", [call("transfer_to_b", "h", why="Tired.")], DONE)
def _(scene: Scene) -> Agent[Any]:
    async def on_handoff(context: RunContextWrapper[Any], reason: Reason) -> None:
        scene.note("handoff", reason)

    return scene.agent(handoffs=[handoff(scene.agent("b"), on_handoff=on_handoff, input_type=Reason)])


@behavior("nested handoff history", CALL, HAND_OFF, DONE)
def _(scene: Scene) -> Agent[Any]:
    scene.config["nest_handoff_history"] = True
    return scene.agent(handoffs=[scene.agent("b")])


@behavior("function that decides on tool results", CALL, PAIR)
def _(scene: Scene) -> Agent[Any]:
    def decide(context: Any, results: list[Any]) -> ToolsToFinalOutputResult:
        scene.note("decide", [(result.tool.name, result.output) for result in results])
        return ToolsToFinalOutputResult(is_final_output=len(results) == 2, final_output="Both.")

    return scene.agent(tool_use_behavior=decide)


@behavior("custom tool", [QUERY], DONE)
def _(scene: Scene) -> Agent[Any]:
    async def query(context: Any, text: str) -> str:
        scene.calls.append(text)
        return "1"

    tool = CustomTool(name="query", description="A query.", on_invoke_tool=query)
    return scene.agent(tools=[ax.tool_policy("idempotent")(tool)])


@behavior("tool that is not there", [call("missing", "m")], DONE)
def _(scene: Scene) -> Agent[Any]:
    scene.config["tool_not_found_behavior"] = "return_error_to_model"
    return scene.agent()
