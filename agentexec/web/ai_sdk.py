"""Events of a task as the AI SDK's UI message stream, which `useChat` and assistant-ui read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from agentexec.web.translation import Message, Translator
from agentexec.web.written_texts import TextChange


class AiSdkTranslator(Translator):
    """Translator into chunks of one assistant message. A turn is a step; progress and result are data parts."""

    def _started(self) -> Iterable[Message]:
        # Clients clear the message on `start`: a stream that goes on must not have one.
        if not self.step:
            yield {"type": "start", "messageId": self.agent_id}

    def _step_begun(self) -> Iterable[Message]:
        yield {"type": "start-step"}

    def _step_ended(self) -> Iterable[Message]:
        yield {"type": "finish-step"}

    def _text(self, change: TextChange) -> Iterable[Message]:
        part = {"id": change.name}
        if change.kind == "begin":
            yield {"type": "text-start", **part}
        elif change.kind == "add":
            yield {"type": "text-delta", **part, "delta": change.text}
        elif change.kind == "end":
            yield {"type": "text-end", **part}
        else:
            # The protocol cannot remove a part; the mark lets an application hide it.
            if change.was_open:
                yield {"type": "text-end", **part, "providerMetadata": {"agentexec": {"withdrawn": True}}}
            yield from self._note("withdrawn", {"id": change.name})

    def _tool_called(self, call_id: str, tool: str, arguments: Any) -> Iterable[Message]:
        yield {
            "type": "tool-input-available",
            "toolCallId": call_id,
            "toolName": tool,
            "input": _parsed(arguments),
            # The worker runs the tool: the browser must not.
            "providerExecuted": True,
            "dynamic": True,
        }

    def _tool_answered(self, call_id: str, output: str | None) -> Iterable[Message]:
        yield {
            "type": "tool-output-available",
            "toolCallId": call_id,
            "output": _parsed(output),
            "providerExecuted": True,
            "dynamic": True,
        }

    def _approval_asked(self, call: dict[str, Any]) -> Iterable[Message]:
        yield {
            "type": "tool-approval-request",
            "approvalId": call["call_id"],
            "toolCallId": call["call_id"],
        }

    def _progress(self, data: dict[str, Any]) -> Iterable[Message]:
        value = {name: data.get(name) for name in ("status", "percentage", "message")}
        yield {"type": "data-progress", "id": "progress", "data": value}

    def _note(self, kind: str, data: dict[str, Any]) -> Iterator[Message]:
        yield {"type": "data-agentexec", "data": {**data, "type": kind}, "transient": True}

    def _finished(self, value: Any) -> Iterable[Message]:
        if value is not None and not isinstance(value, str):
            yield {"type": "data-result", "id": "result", "data": value}
        yield {"type": "finish", "finishReason": "stop"}

    def _failed(self, error: str) -> Iterable[Message]:
        yield {"type": "error", "errorText": error or "The task has failed."}

    def _canceled(self, reason: str) -> Iterable[Message]:
        yield {"type": "abort", **({"reason": reason} if reason else {})}


def _parsed(text: Any) -> Any:
    """Return the value of a JSON text; a text that is none stays as it is."""
    if not isinstance(text, str):
        return text
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
        return value
    except (ValueError, RecursionError):
        return text
