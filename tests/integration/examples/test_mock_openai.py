"""The scripted model serves real agents over both APIs of OpenAI."""

import asyncio

import pytest
from agents import Agent, OpenAIProvider, RunConfig, Runner, function_tool

from examples.mock_openai import MockOpenAI, call, say


async def run_agent(company: str, *, streamed: bool, config: RunConfig) -> tuple[list[int], str]:
    reported = []

    @function_tool
    def report_status(message: str, percentage: int) -> str:
        """Note the progress of the work."""
        reported.append(percentage)
        return message

    agent = Agent(name="Researcher", model="gpt-4o", tools=[report_status])
    if streamed:
        streaming = Runner.run_streamed(agent, company, run_config=config)
        async for _ in streaming.stream_events():
            pass
        return reported, streaming.final_output
    return reported, (await Runner.run(agent, company, run_config=config)).final_output


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("use_responses", [True, False], ids=["responses", "chat"])
async def test_each_of_many_concurrent_runs_follows_the_script(
    mock_openai: MockOpenAI, use_responses: bool, streamed: bool
) -> None:
    mock_openai.script(
        [
            call("report_status", message="Gathering financials", percentage=40),
            call("report_status", message="Comparing competitors", percentage=75),
            say("{prompt} is sound."),
        ]
    )
    provider = OpenAIProvider(use_responses=use_responses)
    config = RunConfig(model_provider=provider, tracing_disabled=True)
    companies = [f"Company {number}" for number in range(4)]

    results = await asyncio.gather(*(run_agent(name, streamed=streamed, config=config) for name in companies))

    assert results == [([40, 75], f"{name} is sound.") for name in companies]
    assert len(mock_openai.requests()) == 3 * len(companies)
