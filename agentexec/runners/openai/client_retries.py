"""Switch for the retries of OpenAI clients: off during a paced call, on the client that the model has.

The SDK turns them off by calling `client.with_options(max_retries=0)`. The copy lacks whatever the application has put
on its client: a traced `client.responses.create`, an attribute of a subclass, the wrapper around the client itself.
"""

from __future__ import annotations

from typing import Any

from agents.models import openai_chatcompletions, openai_responses
from agents.models._retry_runtime import should_disable_provider_managed_retries
from openai._base_client import BaseClient

SWITCH = "should_disable_provider_managed_retries"
"""Function by which the SDK's models decide about a copy of their client."""


class _MaxRetries:
    """Attribute `max_retries` of every OpenAI client: 0 while the SDK has turned a provider's retries off."""

    def __get__(self, client: Any, owner: Any = None) -> Any:
        if client is None:
            return self
        if should_disable_provider_managed_retries():
            return 0
        try:
            return client.__dict__["max_retries"]
        except KeyError:
            raise AttributeError("max_retries") from None

    def __set__(self, client: Any, value: int) -> None:
        client.__dict__["max_retries"] = value

    def __delete__(self, client: Any) -> None:
        client.__dict__.pop("max_retries", None)


def _never() -> bool:
    """Let a model use its own client. The client itself reads the SDK's switch."""
    return False


def patch_client_retries() -> None:
    """Make the clients of this process obey the SDK's switch without being copied. Repeated calls have no effect."""
    modules = (openai_responses, openai_chatcompletions)
    if isinstance(vars(BaseClient).get("max_retries"), _MaxRetries):
        return
    if all(hasattr(module, SWITCH) for module in modules):
        BaseClient.max_retries = _MaxRetries()  # ty: ignore[invalid-assignment]
        for module in modules:
            setattr(module, SWITCH, _never)
