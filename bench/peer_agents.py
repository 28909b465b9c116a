"""The agent of `bench agents` without agentexec: `peer_agents.py plain|DATABASE_URL NUMBER IN_TURN`, prints JSON.

With a database's URL, DBOS and its integration of the Agents SDK run it, in an environment that has both.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from agent_case import AT_ONCE, INPUT, agent, run_config  # ty: ignore[unresolved-import]
from agents import Runner

Run = Callable[[], Awaitable[Any]]


async def plain() -> Any:
    return (await Runner.run(agent(), INPUT, run_config=CONFIG)).final_output


def durable(url: str) -> Run:
    """Return a function that runs the agent as a workflow of DBOS."""
    from dbos import DBOS  # ty: ignore[unresolved-import]  # noqa: PLC0415 - only DBOS's environment has it
    from dbos_openai_agents import DBOSRunner  # ty: ignore[unresolved-import]  # noqa: PLC0415

    @DBOS.workflow()
    async def analyst(text: str) -> str:
        return (await DBOSRunner.run(agent(), text, run_config=CONFIG)).final_output

    DBOS(
        config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "application_version": "1"}
    )
    DBOS.launch()
    return lambda: analyst(INPUT)


async def measure(run: Run, number: int, in_turn: int) -> dict[str, float]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with limit:
            assert await run()

    await asyncio.gather(*(one() for _ in range(min(number, 20))))
    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(number)))
    seconds, used = time.perf_counter() - started, time.process_time() - used
    times = []
    for _ in range(in_turn):
        began = time.perf_counter()
        assert await run()
        times.append(time.perf_counter() - began)
    in_turn_ms = 1000 * sorted(times)[len(times) // 2]
    return {"rate": number / seconds, "cpu_ms": 1000 * used / number, "in_turn_ms": in_turn_ms}


CONFIG = run_config()
if __name__ == "__main__":
    kind, numbers = sys.argv[1], [int(text) for text in sys.argv[2:4]]
    work = plain if kind == "plain" else durable(kind)
    print(json.dumps(asyncio.run(measure(work, *numbers))), flush=True)
