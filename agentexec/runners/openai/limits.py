"""Rate limits for models of the Agents SDK: calls are paced, and a long wait gives the task back to the queue."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from agents import (
    Model,
    ModelProvider,
    ModelResponse,
    ModelSettings,
    ModelTracing,
    MultiProvider,
    Tool,
    TResponseInputItem,
)
from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import TResponseStreamEvent

# Private, and the only way to turn off the OpenAI client's hidden retries for a client that the user has made. They
# sleep through a Retry-After of up to two minutes, twice, and the task keeps its slot.
from agents.models._retry_runtime import (
    provider_managed_retries_disabled,
    should_disable_provider_managed_retries,
)
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from openai import APIConnectionError, APIStatusError, RateLimitError

from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.runners.openai.client_retries import patch_client_retries
from agentexec.runners.pacing import (
    Pacer,
    RetryableFailure,
    bound_retry_after,
    call_retry_delay,
    pacer,
    parse_retry_after,
    retry_later_error,
)

CHARACTERS_PER_TOKEN = 4
ANSWER_TOKENS = 500
"""Estimated tokens of an answer without `max_tokens`."""

RETRYABLE_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the OpenAI client would retry."""


class PacedModel(Model):
    """Model whose calls keep to AGENTEXEC_RATE_LIMITS, together with those of all other processes.

    A rate-limited call (429) is retried in place if the wait is at most AGENTEXEC_RATE_LIMIT_WAIT seconds; a longer
    wait raises RetryLater, which gives the task back to the queue. The OpenAI client's own retries are off: other
    temporary failures are retried twice here, unless the model settings say how (`ModelSettings(retry=...)`). The call
    goes to the very client that the model has, with whatever the application has put on it.

    Args:
        inner: The model that is called.
        name: The model's name in AGENTEXEC_RATE_LIMITS; None takes the name that the model gives itself.
    """

    def __init__(self, inner: Model, name: str | None = None) -> None:
        patch_client_retries()
        self.inner = inner
        own = getattr(inner, "model", None)
        self.name = name or (own if isinstance(own, str) else type(inner).__name__)

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff],
        tracing: ModelTracing,
        **options: Any,
    ) -> ModelResponse:
        """Call the model when its limits allow; see the SDK's `Model`.

        Raises:
            RetryLater: The wait is longer than AGENTEXEC_RATE_LIMIT_WAIT seconds.
            Exception: Whatever the model raises.
        """
        arguments = (system_instructions, input, model_settings, tools, output_schema, handoffs, tracing)
        call = _PacedCall(self.name, model_settings, pacer())
        while True:
            await call.reserve(system_instructions, input, tools)
            try:
                with provider_managed_retries_disabled(True):
                    response = await self.inner.get_response(*arguments, **options)
            except Exception as error:
                await call.failed(error)
            else:
                call.succeeded(response.usage.total_tokens)
                return response

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff],
        tracing: ModelTracing,
        **options: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Stream the model's response when its limits allow; see the SDK's `Model`.

        Nothing is retried once an event has come.

        Raises:
            RetryLater: The wait is longer than AGENTEXEC_RATE_LIMIT_WAIT seconds.
            Exception: Whatever the model raises.
        """
        arguments = (system_instructions, input, model_settings, tools, output_schema, handoffs, tracing)
        call = _PacedCall(self.name, model_settings, pacer())
        while True:
            await call.reserve(system_instructions, input, tools)
            used: float | None = None
            events = self.inner.stream_response(*arguments, **options)
            try:
                try:
                    event = await _next_event(events)
                except Exception as error:
                    await call.failed(error)
                    continue
                while event is not None:
                    used = _used_tokens(event, used)
                    yield event
                    event = await _next_event(events)
            finally:
                if isinstance(events, AsyncGenerator):
                    await events.aclose()
            if used is not None:
                call.succeeded(used)
            return

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the inner model's advice."""
        return self.inner.get_retry_advice(request)

    async def close(self) -> None:
        """Close the inner model."""
        await self.inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)


class PacedProvider(ModelProvider):
    """Provider whose models are paced, for runs of the SDK's `Runner`: `RunConfig(model_provider=PacedProvider())`.

    Args:
        inner: The provider of the models; None takes the SDK's own.
    """

    def __init__(self, inner: ModelProvider | None = None) -> None:
        self.inner = inner or MultiProvider()

    def get_model(self, model_name: str | None) -> Model:
        """Return a model of the inner provider as a PacedModel.

        Args:
            model_name: The model's name, also in AGENTEXEC_RATE_LIMITS; None takes the provider's default.

        Returns:
            The paced model.
        """
        return PacedModel(self.inner.get_model(model_name), model_name)

    async def aclose(self) -> None:
        """Close the inner provider."""
        await self.inner.aclose()


class _PacedCall:
    """One model call with its retries."""

    def __init__(self, model: str, settings: ModelSettings, pacer: Pacer) -> None:
        self._model = model
        self._settings = settings
        self._pacer = pacer
        # The SDK also turns retries off for a request that must not be sent twice.
        self._caller_retries = settings.retry is not None or should_disable_provider_managed_retries()
        self._failures = 0
        self._waited = 0.0

    async def reserve(self, instructions: str | None, input: Any, tools: list[Tool]) -> None:
        """Wait until the limits allow the call."""
        tokens = 0.0
        if self._pacer.limits_tokens(self._model):
            tokens = _estimate_tokens(instructions, input, tools, self._settings)
        self._reservation = await self._pacer.before_call(self._model, tokens)

    def succeeded(self, tokens: float) -> None:
        self._pacer.after_call(self._reservation, tokens)

    async def failed(self, error: Exception) -> None:
        """Wait until the call may be retried; raises its error, or RetryLater."""
        self._pacer.after_call(self._reservation, 0)
        failure = _retryable_failure(error, self._model)
        if failure is None:
            raise error
        self._failures += 1
        max_wait = CONF.rate_limit_wait
        wait = call_retry_delay(
            failure,
            failures=self._failures,
            waited=self._waited,
            max_wait=max_wait,
            caller_retries=self._caller_retries,
        )
        if wait is None:
            raise error
        if wait > max_wait:
            raise retry_later_error(wait, self._model, random.random()) from error  # noqa: S311 - spreads load, no secret
        self._waited += wait
        await asyncio.sleep(wait)


def _retryable_failure(error: Exception, model: str) -> RetryableFailure | None:
    """Return the failure if the call may be retried; None for a permanent one."""
    if isinstance(error, APIConnectionError):
        return RetryableFailure(rate_limited=False, retry_after=None)
    if not isinstance(error, APIStatusError) or error.status_code not in RETRYABLE_STATUSES:
        return None
    headers = error.response.headers
    if error.code == "insufficient_quota" or headers.get("x-should-retry") == "false":
        # Permanent: waiting does not fill an account.
        return None
    retry_after = parse_retry_after(headers.get("retry-after-ms"), headers.get("retry-after"), utc_now())
    return RetryableFailure(isinstance(error, RateLimitError), bound_retry_after(retry_after, model))


def _estimate_tokens(
    instructions: str | None, input: Any, tools: list[Tool], settings: ModelSettings
) -> float:
    """Estimate the tokens of a call; the estimate is corrected when the call is done."""
    return estimate_input(instructions, input, tools) + (settings.max_tokens or ANSWER_TOKENS)


def estimate_input(instructions: str | None, input: Any, tools: list[Tool]) -> float:
    """Estimate the input tokens of a call from its characters."""
    schemas = [getattr(tool, "params_json_schema", None) for tool in tools]
    text = input if isinstance(input, str) else json.dumps(input, default=str)
    characters = len(instructions or "") + len(text) + len(json.dumps(schemas, default=str))
    return characters / CHARACTERS_PER_TOKEN


def _used_tokens(event: TResponseStreamEvent, before: float | None) -> float | None:
    """Return the tokens that a stream has used, which its last event reports; `before` if this event does not."""
    usage = getattr(getattr(event, "response", None), "usage", None)
    total = getattr(usage, "total_tokens", None)
    return before if total is None else float(total)


async def _next_event(events: AsyncIterator[TResponseStreamEvent]) -> TResponseStreamEvent | None:
    """Return the next event, None at the end.

    The switch is set for each step, because a generator has no context of its own.
    """
    with provider_managed_retries_disabled(True):
        return await anext(events, None)
