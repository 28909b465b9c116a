"""Events of a task as AG-UI events, which CopilotKit and `@ag-ui/client` read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from agentexec.web.translation import Message, Translator
from agentexec.web.written_texts import TextChange

WITHDRAWN = "agentexec-withdrawn"
"""Type of the activity that takes the place of a text that is written again: front ends do not know it and show nothing."""


class AgUiTranslator(Translator):
    """Translator into AG-UI events. A turn is a step, and what the protocol has no event for is CUSTOM."""

    def __init__(
        self,
        agent_id: UUID | str,
        state: str = "",
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(agent_id, state)
        self._ids = {"threadId": thread_id or self.agent_id, "runId": run_id or self.agent_id}

    def _started(self) -> Iterable[Message]:
        yield {"type": "RUN_STARTED", **self._ids}
        if self.step:
            yield from self._step_begun()

    def _step_begun(self) -> Iterable[Message]:
        yield {"type": "STEP_STARTED", "stepName": f"step {self.step}"}

    def _step_ended(self) -> Iterable[Message]:
        yield {"type": "STEP_FINISHED", "stepName": f"step {self.step}"}

    def _text(self, change: TextChange) -> Iterable[Message]:
        message = {"messageId": f"{self.agent_id}:{change.name}"}
        if change.kind == "begin":
            yield {"type": "TEXT_MESSAGE_START", **message, "role": "assistant"}
        elif change.kind == "add":
            yield {"type": "TEXT_MESSAGE_CONTENT", **message, "delta": change.text}
        elif change.kind == "end" or change.was_open:
            yield {"type": "TEXT_MESSAGE_END", **message}
        if change.kind == "withdraw":
            # The protocol has no event that removes a message; an activity of the same id replaces it.
            yield {
                "type": "ACTIVITY_SNAPSHOT",
                **message,
                "activityType": WITHDRAWN,
                "content": {},
                "replace": True,
            }

    def _tool_called(self, call_id: str, tool: str, arguments: Any) -> Iterable[Message]:
        yield {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": tool}
        if isinstance(arguments, str) and arguments:
            yield {"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": arguments}
        yield {"type": "TOOL_CALL_END", "toolCallId": call_id}

    def _tool_answered(self, call_id: str, output: str | None) -> Iterable[Message]:
        if output is not None:
            yield {
                "type": "TOOL_CALL_RESULT",
                "messageId": f"{self.agent_id}:{call_id}",
                "toolCallId": call_id,
                "content": output,
                "role": "tool",
            }

    def _approval_asked(self, call: dict[str, Any]) -> Iterable[Message]:
        # The event `agentexec.waiting` has all calls that wait.
        return ()

    def _progress(self, data: dict[str, Any]) -> Iterable[Message]:
        # One member of the state, set as a whole: the rest of the state belongs to the application.
        value = {"agent_id": self.agent_id} | {
            name: data.get(name) for name in ("status", "percentage", "message")
        }
        yield {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/agentexec", "value": value}]}

    def _note(self, kind: str, data: dict[str, Any]) -> Iterator[Message]:
        yield {"type": "CUSTOM", "name": f"agentexec.{kind}", "value": data}

    def _finished(self, value: Any) -> Iterable[Message]:
        yield {"type": "RUN_FINISHED", **self._ids, **({} if value is None else {"result": value})}

    def _failed(self, error: str) -> Iterable[Message]:
        yield {"type": "RUN_ERROR", "message": error or "The task has failed."}

    def _canceled(self, reason: str) -> Iterable[Message]:
        yield from self._note("canceled", {"reason": reason})
        yield {"type": "RUN_FINISHED", **self._ids, "outcome": {"type": "cancelled"}}
