"""Steps: calls of any kind whose outcome is recorded, for agents of any framework."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from agentexec.errors import AgentexecError, CallInterruptedError
from agentexec.journal.calls import CallResult, run_call
from agentexec.journal.current_call import run_unrecorded
from agentexec.journal.recorder import Policy, Scope
from agentexec.journal.store import canonical_json, digest

_anything: TypeAdapter[Any] = TypeAdapter(Any)


class StepCall:
    """One step, as the journal knows it. Its value is always the one that JSON gives back, recorded or not."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        result_type: Any = None,
        *,
        records_intent: bool = True,
    ) -> None:
        self.name = name
        self.arguments = digest(list(arguments))
        self.records_intent = records_intent
        self.display_arguments = canonical_json(list(arguments))
        self._call = function
        self._arguments = arguments
        self._adapter = _anything if result_type is None else TypeAdapter(result_type)

    async def make(self) -> CallResult[Any]:
        """Call the function; a plain one in a thread."""
        return CallResult(self.decode(self.encode(CallResult(await self.call_function()))))

    async def call_function(self) -> Any:
        """The function's value as it is."""
        if inspect.iscoroutinefunction(self._call):
            return await self._call(*self._arguments)
        value = await asyncio.to_thread(self._call, *self._arguments)
        return await value if inspect.isawaitable(value) else value

    def encode(self, answer: CallResult[Any]) -> Any:
        try:
            return self._adapter.dump_python(answer.value, mode="json", warnings=False)
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise AgentexecError(
                f"The value of step {self.name} cannot be written as JSON: {str(error).splitlines()[0]}"
            ) from None

    def decode(self, value: Any) -> Any:
        return self._adapter.validate_python(value, strict=False)

    def interrupted_value(self) -> Any:
        raise CallInterruptedError(self.name)

    def rejected_value(self, message: str | None) -> Any:
        raise CallInterruptedError(self.name)


async def run_step(scope: Scope | None, step: StepCall, policy: Policy) -> Any:
    """The step's recorded value, or a new one; without a scope the function is just called."""
    if scope is None:
        return await run_unrecorded(step.name, policy, step.call_function)
    await scope.recorder.open()
    input_hash = digest([step.name, step.arguments])
    place = f"step:{step.name.replace('/', '_').replace('#', '_')[:60]}"
    path = scope.claim_path(place, input_hash, f"the step {step.name}")
    return await run_call(scope, path, step, policy)


async def run_step_once(scope: Scope | None, name: str, call: Callable[[], Awaitable[bool]]) -> bool:
    """Do something cheap that a replay is not to do again, such as a line in the log."""

    async def done() -> bool:
        return await call()

    return await run_step(scope, StepCall(name, done, (), records_intent=False), "idempotent")
