"""Agent that answers each message of a conversation with one call of a tool, for `test_chats_killed.py`.

Run as a program it is a sender: `python -m tests.faults.chat_module NAME MESSAGES RULE...`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax

ID = "team:1/support"


def write(event: str, turn: object, text: str = "-") -> None:
    """Add a line to the ledger, in one piece."""
    with Path(os.environ["LEDGER"]).open("ab", buffering=0) as ledger:
        ledger.write(f"{event} {turn} {os.getpid()} {text}\n".encode())


class Answerer(Model):
    """Model that calls a tool for the latest message, and then answers it."""

    def __init__(self, turn: UUID) -> None:
        self._turn = turn

    async def _script(self, args: Any, kwargs: Any) -> ScriptedModel:
        items = kwargs["input"] if "input" in kwargs else args[1]
        texts = [item["content"] for item in items if item.get("role") == "user"]
        write("call", self._turn, texts[-1])
        await asyncio.sleep(random.uniform(0, 0.05))
        answered = items[-1].get("type") == "function_call_output"
        output: Any = assistant_message(f"About {texts[-1]}.")
        if not answered:
            output = function_call("look", {"about": texts[-1]}, call_id=f"c{len(items)}")
        usage = Usage(requests=1, input_tokens=1, output_tokens=1, total_tokens=2)
        return ScriptedModel([ModelResponse(output=[output], usage=usage, response_id=None)])

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return await (await self._script(args, kwargs)).get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for event in (await self._script(args, kwargs)).stream_response(*args, **kwargs):
            yield event


@function_tool
@ax.tool_policy("idempotent")
async def look(about: str) -> str:
    """Look."""
    return f"seen {about}"


pool = ax.Pool()


@pool.task("answer")
async def answer(agent_id: UUID, context: ax.Turn) -> str:
    write("turn", agent_id, context.text)
    agent = Agent("Agent", model=Answerer(agent_id), tools=[look])
    result = await ax.OpenAIRunner(agent_id).run(agent, context.text, session=context.session)
    return str(result.final_output)


def send(name: str, messages: int, rules: list[Any]) -> None:
    """Send messages at random distances; whoever is killed begins again, with the same keys."""
    chat = ax.conversation(ID, task="answer")
    for number in range(messages):
        time.sleep(random.uniform(0, 0.2))
        text = f"{name}{number}"
        chat.send_sync(text, if_busy=random.choice(rules), idempotency_key=text)


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
