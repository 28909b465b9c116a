"""The schemas of activities."""

from __future__ import annotations

import agentexec as ax


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
