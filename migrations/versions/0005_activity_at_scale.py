"""Indexes for a million activities, labels by which they are found, and the processes that serve the queues."""

from __future__ import annotations

import json
from uuid import UUID

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

from agentexec.activity.queries.labels import label_rows
from agentexec.config import CONF
from agentexec.db.columns import JsonObject, UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
ACTIVITY = f"{PREFIX}activity"
LABEL = f"{PREFIX}activity_label"
EXACT_TEXT = sa.String(128).with_variant(
    mysql.VARCHAR(128, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
BATCH = 1000


def upgrade() -> None:
    op.create_index(
        f"ix_{PREFIX}activity_type_status", ACTIVITY, ["agent_type", "status", "created_at", "agent_id"]
    )
    op.create_index(f"ix_{PREFIX}activity_finished", ACTIVITY, ["finished_at", "status", "agent_type"])
    op.drop_index(f"ix_{PREFIX}activity_status_created", ACTIVITY)
    op.create_index(f"ix_{PREFIX}activity_status_created", ACTIVITY, ["status", "created_at", "agent_id"])
    op.drop_index(f"ix_{PREFIX}activity_created", ACTIVITY)
    label = op.create_table(
        LABEL,
        sa.Column(
            "agent_id", sa.Uuid(), sa.ForeignKey(f"{ACTIVITY}.agent_id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("name", EXACT_TEXT, primary_key=True),
        sa.Column("value", EXACT_TEXT, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    if not context.is_offline_mode():  # SQL for a person to run can read nothing
        _label_all(label)
    op.create_index(f"ix_{PREFIX}activity_label_value", LABEL, ["name", "value", "created_at", "agent_id"])

    op.create_table(
        f"{PREFIX}worker",
        sa.Column("worker_id", EXACT_TEXT, primary_key=True),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("draining", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("cpu_percent", sa.Double(), nullable=False),
        sa.Column("rss_bytes", sa.BigInteger(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
    )


def _label_all(label: sa.Table) -> None:
    """Add labels for the activities that already have metadata."""
    activity = sa.table(
        ACTIVITY,
        sa.column("agent_id", sa.Uuid()),
        sa.column("created_at", UtcDateTime()),
        sa.column("metadata", JsonObject),
    )
    connection = op.get_bind()
    last: UUID | None = None
    while True:
        query = sa.select(activity).where(activity.c.metadata.is_not(None)).order_by(activity.c.agent_id)
        if last is not None:
            query = query.where(activity.c.agent_id > last)
        rows = connection.execute(query.limit(BATCH)).mappings().all()
        labels = [
            {"agent_id": row["agent_id"], "name": name, "value": value, "created_at": row["created_at"]}
            for row in rows
            for name, value in label_rows(_object(row["metadata"]))
        ]
        if labels:
            connection.execute(label.insert(), labels)
        if len(rows) < BATCH:
            return
        last = rows[-1]["agent_id"]


def _object(value: object) -> dict[str, object]:
    value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else {}


def downgrade() -> None:
    op.drop_table(f"{PREFIX}worker")
    op.drop_table(LABEL)
    op.create_index(f"ix_{PREFIX}activity_created", ACTIVITY, ["created_at"])
    op.drop_index(f"ix_{PREFIX}activity_status_created", ACTIVITY)
    op.create_index(f"ix_{PREFIX}activity_status_created", ACTIVITY, ["status", "created_at"])
    op.drop_index(f"ix_{PREFIX}activity_finished", ACTIVITY)
    op.drop_index(f"ix_{PREFIX}activity_type_status", ACTIVITY)
