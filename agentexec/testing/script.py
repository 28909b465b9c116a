"""The error of a script that is too short; apart from the script, which needs the Agents SDK."""

from __future__ import annotations

from agentexec.errors import AgentexecError


class ScriptEndedError(AgentexecError):
    """An agent called the model, and the test had given no answer for that call."""
