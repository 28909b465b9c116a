"""The HTTP API for FastAPI, under its first name: all of it is in `agentexec.web`.

    from agentexec.contrib.fastapi import add_error_handlers, router
    app.include_router(router())
    add_error_handlers(app)

serves `GET /activity/{agent_id}/events`, which an EventSource in a browser reads and resumes by itself.
"""

from agentexec.web import add_error_handlers, event_stream, router

__all__ = ["add_error_handlers", "event_stream", "router"]
