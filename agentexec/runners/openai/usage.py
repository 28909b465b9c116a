"""Usage of recorded responses, as the SDK counted it when they came."""

from __future__ import annotations

import json
from typing import Any

from agents import Usage
from agents.run_internal.model_retry import apply_retry_attempt_usage
from agents.usage import deserialize_usage

from agentexec.journal.facts import FactKind
from agentexec.journal.recorder import Recorder


def load_usage(data: dict[str, Any]) -> Usage:
    """Return the usage of a recorded response with the tries before it, which the SDK counts as requests."""
    usage = deserialize_usage(data["usage"])
    failed = data.get("failed_tries", 0)
    return apply_retry_attempt_usage(usage, failed) if failed else usage


def add_nested_usage(usage: Usage, recorder: Recorder, path: str) -> None:
    """Add what the agent that is called as a tool at `path` used, and the agents that are its tools.

    The SDK counts those into the run that calls them. Runs that guardrails and function tools start count for themselves.
    """
    for fact in recorder.facts_of(FactKind.MODEL):
        if fact.path.startswith(f"{path}/") and _counts_into(recorder, path, fact.path):
            usage.add(load_usage(json.loads(fact.value)))


def _counts_into(recorder: Recorder, path: str, run_path: str) -> bool:
    """Return True if every run between a call and a run is that of an agent that is a tool."""
    parts = run_path.removeprefix(f"{path}/").split("/")
    calls = ["/".join([path, *parts[:end]]) for end in range(2, len(parts), 2)]
    called = [recorder.facts(call) for call in calls]
    return len(parts) % 2 == 1 and not any(facts and facts[0].kind is FactKind.INTENT for facts in called)
