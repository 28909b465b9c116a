"""Messages about ended tasks and questions: their JSON, and the times of their attempts."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from agentexec.activity.schemas import ApprovalRequest
from agentexec.task import Status

EVENTS = {
    Status.COMPLETE: "task.completed",
    Status.ERROR: "task.failed",
    Status.CANCELED: "task.canceled",
}
"""Type of the message about each way to end."""

ASKED, REMINDED = "approval.requested", "approval.reminder"
"""Types of the messages about a call that waits for a person."""

MAX_ARGUMENTS = 64 * 1024
"""Characters of the arguments of a call in a message; larger ones are left out, and fetched by the receiver's application."""

MAX_RESULT = 64 * 1024
"""Characters of a result in a message; a larger one is left out, and fetched by the receiver's application."""

MAX_METADATA = 16 * 1024
MAX_ERROR = 1000
"""Characters of the reason of a failure, which has no traceback."""

BACKOFF = (5, 300, 1800, 7200, 18_000, 36_000, 36_000)
"""Seconds before each further attempt: the last one is made after a day and some hours."""


def make_body(row: Any, result: str | None, *, result_lost: bool = False) -> str:
    """Return the JSON of the message about an ended task. `row` is of its activity, `result` JSON text.

    `result_lost`: there may have been one that was removed since.
    """
    data: dict[str, Any] = {
        "agent_id": str(row.agent_id),
        "task_name": row.agent_type,
        "queue_name": row.queue,
        "status": row.status.value,
        "attempts": row.attempt,
        "finished_at": _iso(row.finished_at or row.ended_at),
        "metadata": row.labels,
    }
    if row.labels is not None and len(json.dumps(row.labels)) > MAX_METADATA:
        data |= {"metadata": None, "metadata_omitted": True}
    if row.status is Status.COMPLETE:
        data |= {"result": None, "result_omitted": True} if result_lost else _result(result)
    else:
        lines = (row.error or row.message or "").splitlines()
        data["error"] = lines[0][:MAX_ERROR] if lines else None
    return json.dumps(
        {"type": EVENTS[row.status], "timestamp": _iso(row.finished_at or row.ended_at), "data": data},
        separators=(",", ":"),
    )


def make_notice(request: ApprovalRequest, now: datetime) -> tuple[str, str]:
    """Return the type and the JSON of the message about a question."""
    data = request.model_dump(mode="json")
    if len(request.arguments) > MAX_ARGUMENTS:
        data |= {"arguments": None, "arguments_omitted": True}
    if request.metadata is not None and len(json.dumps(request.metadata)) > MAX_METADATA:
        data |= {"metadata": None, "metadata_omitted": True}
    event = REMINDED if request.reminder else ASKED
    message = {"type": event, "timestamp": _iso(now), "data": data}
    return event, json.dumps(message, separators=(",", ":"))


def _result(text: str | None) -> dict[str, Any]:
    if text is None:
        return {"result": None}
    if len(text) > MAX_RESULT:
        return {"result": None, "result_omitted": True}
    try:
        return {"result": json.loads(text)}
    except (ValueError, RecursionError):  # somebody else has written it
        return {"result": None, "result_omitted": True}


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def next_delay(attempts: int, retry_after: str | None, jitter: float) -> float | None:
    """Return the seconds until the next attempt after `attempts` failed ones, None to give up.

    `retry_after` is the receiver's header, of which only seconds are understood; `jitter` (0 to 1) adds up to a tenth.
    """
    if attempts > len(BACKOFF):
        return None
    asked = min(float(retry_after), 86_400.0) if retry_after and retry_after.isdecimal() else 0.0
    return max(BACKOFF[attempts - 1], asked) * (1.0 + 0.1 * jitter)
