"""The schemas of activities."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

import agentexec as ax
from agentexec.db.clock import utc_now


def test_the_schemas_are_where_the_reference_says() -> None:
    from agentexec.activity.schemas import (  # noqa: PLC0415 - the reference's own lines
        ActivityDetailSchema,
        ActivityListItemSchema,
        ActivityListSchema,
        ActivityLogSchema,
    )

    assert ax.activity.ActivityDetailSchema is ActivityDetailSchema
    assert ax.activity.ActivityListSchema is ActivityListSchema
    assert ax.activity.ActivityListItemSchema is ActivityListItemSchema
    assert ax.activity.ActivityLogSchema is ActivityLogSchema


def test_list_items_have_the_fields_that_the_react_types_of_earlier_releases_name() -> None:
    started, reported = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, 2, 900_000, tzinfo=UTC)
    item = ax.activity.ActivityListItemSchema(
        agent_id=uuid4(),
        agent_type="research",
        status=ax.Status.RUNNING,
        created_at=started,
        updated_at=reported,
        started_at=started,
    )
    data = json.loads(item.model_dump_json())
    assert (data["latest_log_timestamp"], data["elapsed_time_seconds"]) == ("2026-01-01T00:01:02.900000Z", 62)
    waiting = item.model_copy(update={"started_at": None, "status": ax.Status.QUEUED})
    assert waiting.elapsed_time_seconds == 0


@pytest.mark.parametrize("schema", [ax.activity.ActivityListItemSchema, ax.activity.ActivityDetailSchema])
def test_an_applications_api_gets_neither_metadata_nor_facts_of_the_queue(schema: Any) -> None:
    """People who look after the queue see them in the command line; contexts and results are not even read here."""
    hidden = {"metadata", "queue", "priority", "run_at", "epoch", "context", "result"}
    now = utc_now()
    task = schema(
        id=UUID(int=1), agent_id=UUID(int=1), agent_type="t", status="queued", created_at=now, updated_at=now, queue="q", run_at=now
    )  # fmt: skip
    assert (task.queue, task.run_at) == ("q", now)
    assert not hidden & set(task.model_dump())
    assert not hidden & set(schema.model_json_schema(mode="serialization")["properties"])
