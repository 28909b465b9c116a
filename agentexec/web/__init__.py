"""HTTP API of the record, for web apps: `ax.web.router(caller=...)`, for FastAPI, and read tokens for browsers.

Everything here is loaded on first use: FastAPI is imported only by what needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from agentexec.errors import UsageError

if TYPE_CHECKING:
    from agentexec.web.api import router as router
    from agentexec.web.caller import Caller as Caller
    from agentexec.web.dashboard_app import dashboard as dashboard
    from agentexec.web.errors import add_error_handlers as add_error_handlers
    from agentexec.web.server_sent_events import event_stream as event_stream
    from agentexec.web.tokens import read_token as read_token
    from agentexec.web.translated_streams import ag_ui_stream as ag_ui_stream
    from agentexec.web.translated_streams import agent_input as agent_input
    from agentexec.web.translated_streams import ai_sdk_stream as ai_sdk_stream

# No module here has the name of something public: importing it would set the attribute.
_HOMES = {
    "Caller": "agentexec.web.caller",
    "add_error_handlers": "agentexec.web.errors",
    "ag_ui_stream": "agentexec.web.translated_streams",
    "agent_input": "agentexec.web.translated_streams",
    "ai_sdk_stream": "agentexec.web.translated_streams",
    "dashboard": "agentexec.web.dashboard_app",
    "event_stream": "agentexec.web.server_sent_events",
    "read_token": "agentexec.web.tokens",
    "router": "agentexec.web.api",
}

__all__ = [
    "Caller",
    "add_error_handlers",
    "ag_ui_stream",
    "agent_input",
    "ai_sdk_stream",
    "dashboard",
    "event_stream",
    "read_token",
    "router",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agentexec.web' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette"):
            raise
        raise UsageError(
            f"agentexec.web.{name} needs {error.name}, which is not installed; run `pip install fastapi`, or "
            "`pip install 'agentexec[web]'` for the dashboard too."
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
