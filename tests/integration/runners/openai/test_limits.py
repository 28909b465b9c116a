"""Rate limits over HTTP, and with real workers."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from agents import (
    Agent,
    ModelRetrySettings,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
    retry_policies,
)
from agents.testing import ScriptedModel, assistant_message, function_call
from openai import AsyncAzureOpenAI, AsyncOpenAI, InternalServerError, RateLimitError

import agentexec as ax
from agentexec.runners.openai.limits import PacedModel, PacedProvider
from agentexec.runtime import RUNTIME
from agentexec.state.memory_backend import MemoryBackend
from examples.mock_openai import MockOpenAI, say
from tests.deployment import REPOSITORY, Deploy, Deployment, on_one_target, on_targets
from tests.waiting import patient

AGENTS_MODULE = Path(__file__).parent / "agents_module.py"
CONFIG = RunConfig(tracing_disabled=True)

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@pytest.fixture(autouse=True)
def settings(sqlite_tables: str) -> Iterator[None]:
    before = ax.CONF.rate_limits, ax.CONF.rate_limit_wait
    ax.configure(database_url=sqlite_tables)
    yield
    ax.CONF.rate_limits, ax.CONF.rate_limit_wait = before
    RUNTIME.close()


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatCompletionsModel])
async def model(request: pytest.FixtureRequest, mock_openai: MockOpenAI) -> Any:
    mock_openai.script([say("At last.")])
    # With the client's own two retries, the default for users.
    async with AsyncOpenAI(base_url=mock_openai.base_url, api_key="test") as client:
        yield PacedModel(request.param("gpt-4o", client))


async def ask(mode: str, model: Any, settings: ModelSettings | None = None) -> str:
    agent = Agent(name="Asker", model=model, model_settings=settings or ModelSettings())
    if mode == "run":
        return (await Runner.run(agent, "?", run_config=CONFIG)).final_output
    result = Runner.run_streamed(agent, "?", run_config=CONFIG)
    async for _ in result.stream_events():
        pass
    return result.final_output


def refuse(server: MockOpenAI, times: int, retry_after: float | None, status: int = 429) -> None:
    after = {} if retry_after is None else {"retry_after": retry_after}
    server.inject({"type": "fail", "status": status, "times": times, **after})


@pytest.mark.thorough
@both_modes
async def test_a_short_wait_is_spent_in_place(mode: str, model: Any, mock_openai: MockOpenAI) -> None:
    refuse(mock_openai, 2, 1)
    started = time.monotonic()
    assert await ask(mode, model) == "At last."
    assert time.monotonic() - started >= 2
    assert [request["status"] for request in mock_openai.requests()] == [429, 429, 200]


@both_modes
@pytest.mark.parametrize(
    "settings", [None, ModelRetrySettings(max_retries=3, policy=retry_policies.retry_after())]
)
async def test_a_long_wait_gives_the_task_back_to_the_queue(
    mode: str, model: Any, mock_openai: MockOpenAI, settings: ModelRetrySettings | None
) -> None:
    """The OpenAI client alone would sleep for a minute, twice."""
    refuse(mock_openai, 1, 60)
    started = time.monotonic()
    with pytest.raises(ax.RetryLater, match=r"^Waiting [67]\d s: gpt-4o is rate limited.$") as caught:
        await ask(mode, model, ModelSettings(retry=settings))
    assert time.monotonic() - started < patient(30)
    assert 60 <= caught.value.seconds <= 72
    assert len(mock_openai.requests()) == 1


@both_modes
async def test_short_waits_that_add_up_give_the_task_back_to_the_queue(
    mode: str, model: Any, mock_openai: MockOpenAI
) -> None:
    ax.CONF.rate_limit_wait = 1.5
    refuse(mock_openai, 5, 1)
    with pytest.raises(ax.RetryLater):
        await ask(mode, model)
    assert len(mock_openai.requests()) == 2


async def test_a_client_outside_paced_calls_retries_as_before(mock_openai: MockOpenAI) -> None:
    mock_openai.script([say("At last.")])
    async with AsyncOpenAI(base_url=mock_openai.base_url, api_key="test") as client:
        PacedModel(OpenAIResponsesModel("gpt-4o", client))
        refuse(mock_openai, 1, 0.01, status=500)
        assert (await client.responses.create(model="gpt-4o", input="?")).output_text == "At last."
        assert client.copy(max_retries=5).max_retries == 5


async def test_a_temporary_failure_is_retried_twice(model: Any, mock_openai: MockOpenAI) -> None:
    refuse(mock_openai, 2, None, status=500)
    assert await ask("run", model) == "At last."
    refuse(mock_openai, 3, None, status=500)
    with pytest.raises(InternalServerError):
        await ask("run", model)
    assert [request["status"] for request in mock_openai.requests()] == [500, 500, 200, 500, 500, 500]


async def test_the_sdks_retry_settings_are_honored(model: Any, mock_openai: MockOpenAI) -> None:
    refuse(mock_openai, 1, 1)
    with pytest.raises(RateLimitError):
        await ask("run", model, ModelSettings(retry=ModelRetrySettings(max_retries=0)))
    assert len(mock_openai.requests()) == 1
    refuse(mock_openai, 4, None)
    settings = ModelRetrySettings(
        max_retries=4, backoff={"initial_delay": 0.01}, policy=retry_policies.http_status([429])
    )
    assert await ask("run", model, ModelSettings(retry=settings)) == "At last."
    assert len(mock_openai.requests()) == 6


@both_modes
@pytest.mark.parametrize("where", ["tool", "nested", "guardrail"])
async def test_the_sdk_lets_retry_later_through(mode: str, where: str) -> None:
    @function_tool
    async def tool() -> str:
        raise ax.RetryLater(7)

    class Refusing(ScriptedModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            raise ax.RetryLater(7)

    inner = Agent(name="Inner", model=Refusing())
    nested = inner.as_tool("tool", "Nested.")
    arguments = {"input": "?"} if where == "nested" else {}
    script = ScriptedModel([[function_call("tool", arguments, call_id="1")], [assistant_message("Lost.")]])
    agent = Agent(name="Outer", model=script, tools=[nested if where == "nested" else tool])
    with pytest.raises(ax.RetryLater):
        if mode == "run":
            await Runner.run(agent, "?", run_config=CONFIG)
        else:
            async for _ in Runner.run_streamed(agent, "?", run_config=CONFIG).stream_events():
                pass


class AuditedClient(AsyncOpenAI):
    """A client that cannot be made like its parent, which is how the OpenAI library copies clients."""

    def __init__(self, audit: list[str], base_url: str) -> None:
        super().__init__(base_url=base_url, api_key="test")
        self.audit = audit

    async def post(self, path: str, **options: Any) -> Any:  # ty: ignore[incompatible-method-override]
        self.audit.append(path)
        return await super().post(path, **options)


class WrappedClient:
    """A wrapper as tracing libraries make them: everything that it does not trace is the client's."""

    def __init__(self, inner: Any, audit: list[str]) -> None:
        self._inner = inner
        self._audit = audit

    def __getattr__(self, name: str) -> Any:
        if name in ("responses", "chat"):
            self._audit.append(name)
        return getattr(self._inner, name)


def traced_on_instance(client: AsyncOpenAI, audit: list[str]) -> AsyncOpenAI:
    for resource in (client.responses, client.chat.completions):

        def trace(create: Any = resource.create, **options: Any) -> Any:
            audit.append("create")
            return create(**options)

        setattr(resource, "create", trace)  # noqa: B010 - as tracing libraries do
    return client


@both_modes
@pytest.mark.parametrize(
    ("api", "kind"),
    [
        (OpenAIResponsesModel, "instance"),
        (OpenAIResponsesModel, "subclass"),
        (OpenAIResponsesModel, "wrapper"),
        (OpenAIResponsesModel, "azure"),
        (OpenAIChatCompletionsModel, "instance"),
        (OpenAIChatCompletionsModel, "wrapper"),
    ],
)
async def test_a_call_goes_to_the_very_client_that_the_model_has(
    mode: str, api: Any, kind: str, mock_openai: MockOpenAI
) -> None:
    audit: list[str] = []
    plain = AsyncOpenAI(base_url=mock_openai.base_url, api_key="test")
    azure = AsyncAzureOpenAI(base_url=mock_openai.base_url, api_key="test", api_version="1")
    client: Any = {
        "instance": lambda: traced_on_instance(plain, audit),
        "subclass": lambda: AuditedClient(audit, mock_openai.base_url),
        "wrapper": lambda: WrappedClient(plain, audit),
        "azure": lambda: traced_on_instance(azure, audit),
    }[kind]()
    mock_openai.script([say("At last.")])
    refuse(mock_openai, 1, None, status=500)
    # The SDK also turns the client's retries off when it retries by itself.
    settings = ModelRetrySettings(
        max_retries=1, backoff={"initial_delay": 0.01}, policy=retry_policies.http_status([500])
    )
    assert await ask(mode, PacedModel(api("gpt-4o", client)), ModelSettings(retry=settings)) == "At last."
    assert len(audit) >= 2
    assert [request["status"] for request in mock_openai.requests()] == [500, 200]
    assert client.max_retries == 2


async def test_calls_are_paced(mock_openai: MockOpenAI, sqlite_tables: str) -> None:
    """At 60 calls a minute, six start at once and the others 1.1 s apart."""
    mock_openai.script([say("At last.")])
    ax.CONF.rate_limits = "gpt-4o=60rpm"
    async with AsyncOpenAI(base_url=mock_openai.base_url, api_key="test") as client:
        model = PacedModel(OpenAIResponsesModel("gpt-4o", client))
        started = time.monotonic()
        await asyncio.gather(*(ask("run", model) for _ in range(8)))
        assert time.monotonic() - started > 2.0
        ax.CONF.rate_limit_wait = 0.5
        ax.configure(database_url=sqlite_tables)
        with pytest.raises(ax.RetryLater, match="gpt-4o is rate limited"):
            await asyncio.gather(*(ask("run", model) for _ in range(8)))


async def test_a_calls_estimate_is_corrected_by_its_usage() -> None:
    backend = MemoryBackend()
    own = ax.Pool()
    ax.CONF.rate_limits = "*=1000tpm"
    with RUNTIME.replaced(RUNTIME.engine, backend, own.registry):
        model = PacedModel(ScriptedModel([[assistant_message("A")], [assistant_message("B")]]), "m")
        await ask("run", model)
        # The estimate took the bucket into debt (500 of 100), but the call has used nothing.
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await ask("run_streamed", model)
        assert time.monotonic() - started < patient(1)


async def test_calls_continue_while_the_state_backend_is_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class UnavailableBackend(MemoryBackend):
        def reserve(self, demands: Any, max_wait: float) -> float:
            raise ax.UnavailableError("Redis cannot be reached.")

        def settle(self, demands: Any) -> None:
            raise ax.UnavailableError("Redis cannot be reached.")

    ax.CONF.rate_limits = "*=1rpm,10tpm"
    with RUNTIME.replaced(RUNTIME.engine, UnavailableBackend(), ax.Pool().registry):
        for _ in range(2):
            assert await ask("run", PacedModel(ScriptedModel([[assistant_message("A")]]), "m")) == "A"
    assert caplog.text.count("not paced until it is back") == 1


def test_a_paced_provider_returns_paced_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    model = PacedProvider().get_model("gpt-4o")
    assert isinstance(model, PacedModel)
    assert model.name == "gpt-4o"


async def test_a_handler_can_give_its_task_back_to_the_queue() -> None:
    own = ax.Pool()
    turns: list[int] = []

    @own.task("own")
    async def own_task(agent_id: UUID, context: Any) -> str:
        turns.append(1)
        if len(turns) == 1:
            raise ax.RetryLater(3600, "the index is being rebuilt")
        if len(turns) == 2:
            async with asyncio.TaskGroup() as group:
                group.create_task(_later(10))
                group.create_task(_later(20))
        return "done"

    @own.task("plain")
    def plain(agent_id: UUID, context: Any) -> str:
        turns.append(1)
        if len(turns) < 5:
            raise ax.RetryLater(1)
        return "done"

    async with ax.testing.harness(own) as harness:
        task = await harness.run("own")
        assert (task.result, task.attempts) == ("done", 1)
        assert "Waiting 3600 s: the index is being rebuilt." in task.messages
        assert "Waiting 20 s: the task asked to be run later." in task.messages
        assert (await harness.run("plain")).attempts == 1


async def _later(seconds: float) -> None:
    raise ax.RetryLater(seconds)


def agents_worker(deployment: Deployment, server: MockOpenAI) -> None:
    deployment.spawn(
        [sys.executable, "-m", "agentexec", "worker", str(AGENTS_MODULE)],
        PYTHONPATH=str(REPOSITORY),
        OPENAI_BASE_URL=server.base_url,
        OPENAI_API_KEY="mock",
    )


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_limited_task_gives_its_slot_to_others(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say("At last.")])
    refuse(mock_openai, 1, 4)
    deployment = deploy(worker_concurrency=1, rate_limit_wait=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("ask", "limited")
    deployment.wait_for(lambda: re.match(r"Waiting \d+ s: ", deployment.detail(task).logs[-1].message))
    waiting = deployment.detail(task)
    assert (waiting.status, waiting.attempt) == (ax.Status.QUEUED, 0)
    other = deployment.enqueue("work", "other")
    deployment.wait_for_status(other, "complete", timeout=3)
    assert deployment.status(task) == "queued"
    done = deployment.wait_for_status(task, "complete")
    assert done.attempt == 1
    assert ax.get_result_sync(task) == "At last."
    assert deployment.ledger("caught") == {}
    assert deployment.ledger("start")["limited"] == 2


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres", alternates=False)
def test_two_processes_together_keep_to_the_limit(deploy: Deploy) -> None:
    """At 600 calls a minute, 60 start at once and then nine a second."""
    deployment = deploy(rate_limits="m=600rpm")
    program = """
import asyncio, sys, time
from agentexec.runners.pacing import pacer

async def main():
    calls = 0
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        await asyncio.gather(*(pacer().before_call("m", 1) for _ in range(5)))
        calls += 5
    print(calls)

asyncio.run(main())
"""
    command = [sys.executable, "-c", program]
    started = time.monotonic()
    both = [
        subprocess.Popen(command, env=deployment.environment, cwd=deployment.folder, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    calls = [int(process.communicate(timeout=patient(30))[0]) for process in both]
    seconds = time.monotonic() - started
    assert all(calls)
    assert 60 + 9 * 2 <= sum(calls) <= 60 + 9 * seconds + 1
