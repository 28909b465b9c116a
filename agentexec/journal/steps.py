"""Steps: calls of any kind whose outcome is recorded, for agents of any framework."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import to_json

from agentexec.errors import CallInterruptedError, UsageError
from agentexec.journal.calls import CallResult, run_call
from agentexec.journal.canonical import canonical_json, digest
from agentexec.journal.current_call import run_unrecorded
from agentexec.journal.facts import path_segment
from agentexec.journal.recorder import Policy, Scope
from agentexec.journal.user_errors import guard_threads
from agentexec.values.codec import Codec, codec_of


def _result_codec(name: str, result_type: Any) -> Codec:
    if result_type is None:
        return codec_of(Any)
    try:
        return Codec(result_type)
    except UsageError as error:
        raise UsageError(f"The result_type of step {name} cannot be read from JSON ({error}).") from None


class StepCall:
    """A step, in the form in which the journal makes calls. Its value always passes through JSON, recorded or not."""

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
        self.records_cancellation = True
        self.arguments = digest(list(arguments))
        self.records_intent = records_intent
        self.display_arguments = canonical_json(list(arguments))
        self._call = function
        self._arguments = arguments
        self._codec = _result_codec(name, result_type)

    async def make(self) -> CallResult[Any]:
        """Call the function, a plain one in a thread, and pass its value through JSON."""
        return CallResult(self.decode(self.encode(CallResult(await self.call_function()))))

    async def make_again(self) -> None:
        """Call the function again, and drop its value."""
        await self.call_function()

    async def call_function(self) -> Any:
        """Call the function and return its value unchanged."""
        if inspect.iscoroutinefunction(self._call):
            return await self._call(*self._arguments)
        guard_threads(asyncio.get_running_loop())
        value = await asyncio.to_thread(self._call, *self._arguments)
        return await value if inspect.isawaitable(value) else value

    def encode(self, answer: CallResult[Any]) -> Any:
        """Return the step's value as JSON data that comes back. Raises UsageError for a value that has none."""
        return json.loads(self._codec.dump(answer.value, f"The value of step {self.name}"))

    def decode(self, value: Any) -> Any:
        """Return the value as the type of the step's result."""
        return value if self._codec.is_any else self._codec.load(to_json(value))

    async def interrupted_value(self) -> Any:
        """Raise: a step has no value of its own for an interruption."""
        raise CallInterruptedError(self.name)

    async def rejected_value(self, message: str | None) -> Any:
        """Raise: nobody is asked about a step."""
        raise CallInterruptedError(self.name)


async def run_step(scope: Scope | None, step: StepCall, policy: Policy) -> Any:
    """Return the step's recorded value, or make and record a new one; without a scope just call the function."""
    if scope is None:
        return await run_unrecorded(step.name, policy, step.call_function)
    await scope.recorder.open()
    input_hash = digest([step.name, step.arguments])
    path = scope.claim_path(f"step:{path_segment(step.name)}", input_hash, f"the step {step.name}")
    return await run_call(scope, path, step, policy)


async def run_step_once(scope: Scope | None, name: str, call: Callable[[], Awaitable[bool]]) -> bool:
    """Do something cheap that a replay must not repeat, such as writing a log line."""

    async def function() -> bool:
        return await call()

    return await run_step(scope, StepCall(name, function, (), records_intent=False), "idempotent")
