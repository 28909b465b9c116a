"""An agent whose code is changed by a deploy, and whose worker is killed around the restart, for `test_restart_killed.py`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel
from sqlalchemy import Engine, event

import agentexec as ax
from agentexec.journal.store import JournalStore
from agentexec.worker import divergence

FOLDER = Path(os.environ["LEDGER"]).parent


class Sale(BaseModel):
    """Context of one agent: the instant after its deploy at which its worker is killed."""

    kill_at: int


class Instants:
    """Count of the instants since the task at work has begun with the new code. One worker runs one task at a time."""

    def __init__(self) -> None:
        self.kill_at = 0
        self.seen = 0
        self.is_planned = False
        """True if a program says when to die, see `restart_program.py`."""

    def begin(self, kill_at: int) -> None:
        """Note the task at work; 0 for one that is not killed now."""
        if self.is_planned:
            return
        killed = (FOLDER / f"killed-{kill_at}").exists()
        self.kill_at, self.seen = 0 if killed else kill_at, 0

    def tick(self, name: str) -> None:
        """Count an instant, and die if it is the one."""
        self.seen += 1
        if self.kill_at and self.seen == self.kill_at:
            (FOLDER / f"killed-{self.kill_at}").write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)


INSTANTS = Instants()


def killable(call: Any) -> Any:
    """Return a function with an instant before it and one after it."""

    def killed(*arguments: Any, **options: Any) -> Any:
        INSTANTS.tick(f"before {call.__name__}")
        result = call(*arguments, **options)
        INSTANTS.tick(f"after {call.__name__}")
        return result

    killed.__name__ = call.__name__
    return killed


def in_give_up(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    """Count the statements of the restart's transaction."""
    writes = statement.lstrip().upper().startswith(("INSERT", "DELETE", "UPDATE"))
    if writes and "journal" in statement:
        INSTANTS.tick(statement[:50])


JournalStore.append = killable(JournalStore.append)  # type: ignore[method-assign]
JournalStore.append_together = killable(JournalStore.append_together)  # type: ignore[method-assign]
divergence.give_up = killable(divergence.give_up)
event.listen(Engine, "before_cursor_execute", in_give_up)

pool = ax.Pool()


@pool.task("sell", on_divergence=ax.Restart(tell_effects=True))
async def sell(agent_id: UUID, context: Sale) -> str:
    is_new = (FOLDER / "deployed").exists()
    INSTANTS.begin(context.kill_at if is_new else 0)
    word = "new" if is_new else "old"

    @function_tool
    @ax.tool_policy("idempotent")
    def charge() -> str:
        with Path(os.environ["LEDGER"]).open("a") as ledger:
            ledger.write(f"{context.kill_at} {word} {ax.idempotency_key()}\n")
        return f"charged by {word} code"

    script = [
        [function_call("charge", {}, call_id=f"call_{word}")],
        [assistant_message(f"Sold by {word} code.")],
    ]
    model = ReplayedModel(script)
    agent = Agent("Till", model=model, tools=[charge])
    result = await ax.OpenAIRunner(agent_id).run(agent, f"Sell with {word} words.")
    if not is_new:
        await ax.wait_for_event("deployed", str(context.kill_at))
    return f"{result.final_output} {model.told}"


class ReplayedModel(ScriptedModel):
    """Scripted model whose answer depends on its input alone, as other attempts have taken the turns before."""

    def __init__(self, script: Any) -> None:
        super().__init__(script)
        self._whole = script
        self.told = False

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        given = kwargs["input"] if "input" in kwargs else args[1]
        items = given if isinstance(given, list) else []
        self.told = "charged by old code" in str(given)
        turn = sum(isinstance(item, dict) and item.get("type") == "function_call" for item in items)
        return await ScriptedModel([self._whole[turn]]).get_response(*args, **kwargs)
