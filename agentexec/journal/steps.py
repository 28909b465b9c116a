"""Steps: calls of any kind whose outcome is recorded, for agents of any framework."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from agentexec.errors import AgentexecError, CallInterruptedError
from agentexec.journal.calls import Answer, perform, unrecorded
from agentexec.journal.recorder import Policy, Scope
from agentexec.journal.store import digest, text_of

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
        intended: bool = True,
    ) -> None:
        self.name = name
        self.arguments = digest(list(arguments))
        self.intended = intended
        self.shown = text_of(list(arguments))
        self._call = function
        self._arguments = arguments
        self._adapter = _anything if result_type is None else TypeAdapter(result_type)

    async def make(self) -> Answer[Any]:
        """Call the function; a plain one in a thread."""
        return Answer(self.decode(self.encode(Answer(await self.plainly()))))

    async def plainly(self) -> Any:
        """The function's value as it is."""
        if inspect.iscoroutinefunction(self._call):
            return await self._call(*self._arguments)
        value = await asyncio.to_thread(self._call, *self._arguments)
        return await value if inspect.isawaitable(value) else value

    def encode(self, answer: Answer[Any]) -> Any:
        try:
            return self._adapter.dump_python(answer.value, mode="json", warnings=False)
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise AgentexecError(
                f"The value of step {self.name} cannot be written as JSON: {str(error).splitlines()[0]}"
            ) from None

    def decode(self, value: Any) -> Any:
        return self._adapter.validate_python(value, strict=False)

    def cut_off(self) -> Any:
        raise CallInterruptedError(self.name)

    def refused(self, message: str | None) -> Any:
        raise CallInterruptedError(self.name)


async def take_step(scope: Scope | None, step: StepCall, policy: Policy) -> Any:
    """The step's recorded value, or a new one; without a scope the function is just called."""
    if scope is None:
        return await unrecorded(step.name, policy, step.plainly)
    await scope.recorder.open()
    input_hash = digest([step.name, step.arguments])
    place = f"step:{step.name.replace('/', '_').replace('#', '_')[:60]}"
    path = scope.claim(place, input_hash, f"the step {step.name}")
    return await perform(scope, path, step, policy)


async def once(scope: Scope | None, name: str, call: Callable[[], Awaitable[bool]]) -> bool:
    """Do something cheap that a replay is not to do again, such as a line in the log."""

    async def done() -> bool:
        return await call()

    return await take_step(scope, StepCall(name, done, (), intended=False), "idempotent")
