"""Children of tasks, events that tasks wait for, and trackers in the record."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from agentexec.config import CONF
from agentexec.db.columns import BigId, LongText, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
EXACT_TEXT = sa.String(255).with_variant(
    mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)


def of_task() -> sa.Column:
    return sa.Column(
        "agent_id",
        sa.Uuid(),
        sa.ForeignKey(f"{PREFIX}activity.agent_id", ondelete="CASCADE"),
        primary_key=True,
    )


def upgrade() -> None:
    op.add_column(f"{PREFIX}activity", sa.Column("parent_id", sa.Uuid()))
    op.create_index(f"ix_{PREFIX}activity_parent", f"{PREFIX}activity", ["parent_id", "created_at"])

    op.create_table(
        f"{PREFIX}sent_event",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("name", EXACT_TEXT, nullable=False),
        sa.Column("key", EXACT_TEXT, nullable=False),
        sa.Column("value", LongText, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_index(f"ix_{PREFIX}sent_event_name", f"{PREFIX}sent_event", ["name", "key"])
    op.create_index(f"ix_{PREFIX}sent_event_created", f"{PREFIX}sent_event", ["created_at"])

    op.create_table(
        f"{PREFIX}event_wait",
        of_task(),
        sa.Column("path", EXACT_TEXT, primary_key=True),
        sa.Column("name", EXACT_TEXT, nullable=False),
        sa.Column("key", EXACT_TEXT, nullable=False),
        sa.Column("event_id", sa.BigInteger()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("wake_at", UtcDateTime()),
    )
    op.create_index(f"ix_{PREFIX}event_wait_name", f"{PREFIX}event_wait", ["name", "key"])
    op.create_index(f"ix_{PREFIX}event_wait_wake", f"{PREFIX}event_wait", ["wake_at"])

    op.create_table(
        f"{PREFIX}tracker",
        sa.Column("key", EXACT_TEXT, primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("task", LongText),
        sa.Column("fired_at", UtcDateTime()),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
    )
    op.create_index(f"ix_{PREFIX}tracker_updated", f"{PREFIX}tracker", ["updated_at"])
    op.create_table(
        f"{PREFIX}tracker_mark",
        of_task(),
        sa.Column("path", EXACT_TEXT, primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    for table in ("tracker_mark", "tracker", "event_wait", "sent_event"):
        op.drop_table(f"{PREFIX}{table}")
    op.drop_index(f"ix_{PREFIX}activity_parent", f"{PREFIX}activity")
    op.drop_column(f"{PREFIX}activity", "parent_id")
