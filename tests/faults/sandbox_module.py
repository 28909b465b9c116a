"""Tasks whose agents work in a sandbox, for tests that kill their workers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

from agents import Model, ModelResponse, RunConfig, function_tool
from agents.run_config import SandboxRunConfig
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Shell
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.snapshot import LocalSnapshotSpec
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from tests.faults.worker_module import Job, write_ledger

pool = ax.Pool()


class Turns(Model):
    """Model that gives the turn that its input has not got yet."""

    def __init__(self, turns: list[Any]) -> None:
        self._turns = turns

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        asked = json.dumps(kwargs["input"] if "input" in kwargs else args[1])
        write_ledger("asked", str(len(asked)))
        turn = next(turn for turn in self._turns if getattr(turn[0], "call_id", "none of them") not in asked)
        return await ScriptedModel([turn]).get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pool.task("build")
async def build(agent_id: UUID, context: Job) -> str:
    """Write a file, be killed `times` times, and read the file."""

    @ax.tool_policy("idempotent")
    @function_tool
    def die() -> str:
        """Kill the worker."""
        write_ledger("die", context.key)
        if Path(os.environ["LEDGER"]).read_text().count(f"die {context.key} ") <= context.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    def command(number: int, text: str) -> list[Any]:
        return [function_call("exec_command", {"cmd": text}, call_id=f"call_{number}")]

    turns = [
        command(1, "printf 'one\\n' > out.txt; pwd"),
        [function_call("die", {}, call_id="call_2")],
        command(3, "cat out.txt"),
        [assistant_message("Done.")],
    ]
    agent = SandboxAgent("Builder", model=Turns(turns), capabilities=[Shell()], tools=[die])
    snapshot = LocalSnapshotSpec(base_path=Path(os.environ["LEDGER"]).parent / "snapshots")
    sandbox = SandboxRunConfig(client=UnixLocalSandboxClient(), snapshot=snapshot)
    runner = ax.OpenAIRunner(agent_id)
    result = await runner.run(agent, "Go.", run_config=RunConfig(sandbox=sandbox, tracing_disabled=True))
    return "\n".join(item.output for item in result.new_items if item.type == "tool_call_output_item")
