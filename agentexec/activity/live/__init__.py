"""Live events of running tasks: publish, follow and stream them."""

from agentexec.activity.live.publisher import publish

__all__ = ["publish"]
