"""Task that runs an agent without any SDK, and survives a crash of its worker halfway.

The agent is a loop of a few lines over any chat completions server. `self.step` makes it durable: each model call and
each tool call is recorded, so when the loop runs again from its top, it repeats none of them.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax

Message = dict[str, Any]

SYSTEM = (
    'You plan trips. Answer with JSON: either {"tool": NAME, "argument": TEXT} to use one of the tools '
    'weather and book_hotel, or {"answer": TEXT} when you are done.'
)


class Trip(BaseModel):
    city: str


def ask_model(messages: list[Message]) -> Message:
    """Return one chat completion, using only the standard library."""
    base = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    request = urllib.request.Request(
        f"{base}/chat/completions",
        data=json.dumps(
            {"model": os.environ.get("AGENT_MODEL", "gpt-4o-mini"), "messages": messages}
        ).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]


def weather(city: str) -> str:
    return f"Sunny in {city}."


def book_hotel(city: str) -> str:
    """Book a room, at most once: the hotel recognizes a repeated request by its key."""
    return f"Booked in {city} under {ax.idempotency_key()}."


TOOLS: dict[str, Callable[[str], str]] = {"weather": weather, "book_hotel": book_hotel}


class LoopRunner(ax.BaseAgentRunner):
    """Runner that asks the model, calls the tool that it names, and asks again."""

    def __init__(self, agent_id: UUID, model: Callable[[list[Message]], Message] = ask_model) -> None:
        super().__init__(agent_id)
        self._model = model

    async def run(self, agent: str, input: str) -> str:
        messages: list[Message] = [{"role": "system", "content": agent}, {"role": "user", "content": input}]
        while True:
            # Asking again is harmless; booking again is not, unless the hotel recognizes the repetition.
            message = await self.step("model", self._model, messages, policy="idempotent")
            answer = json.loads(message["content"])
            if "answer" in answer:
                return answer["answer"]
            # A step too: a replay must not write the same line to the log of the task again.
            await self.step("report", self.report, f"Using {answer['tool']}", policy="idempotent")
            output = await self.step(
                answer["tool"], TOOLS[answer["tool"]], answer["argument"], policy="idempotent"
            )
            messages = [
                *messages,
                {"role": "assistant", "content": message["content"]},
                {"role": "user", "content": output},
            ]


pool = ax.Pool()


@pool.task("trip")
async def trip(agent_id: UUID, context: Trip) -> str:
    return await LoopRunner(agent_id).run(SYSTEM, f"Plan a trip to {context.city}.")
