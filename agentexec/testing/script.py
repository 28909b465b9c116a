"""Error of a script that is too short. It is not in the script's module, which needs the Agents SDK."""

from __future__ import annotations

from agentexec.errors import AgentexecError


class ScriptEndedError(AgentexecError):
    """An agent called the model, and the script has no answer left. Give one more with `harness.model.say(...)`."""
