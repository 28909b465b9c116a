"""Live events of running tasks: published by workers, followed by readers."""

from agentexec.activity.live.publisher import publish

__all__ = ["publish"]
