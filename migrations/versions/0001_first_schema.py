"""The first schema: activities with their log and results, and the tables of the SQL state backend."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import BigId, JsonObject, LongText, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
STATUS = sa.String(10)


def upgrade() -> None:
    activity = op.create_table(
        f"{PREFIX}activity",
        sa.Column("agent_id", sa.Uuid(), primary_key=True),
        sa.Column("agent_type", sa.String(200), nullable=False),
        sa.Column("status", STATUS, nullable=False),
        sa.Column("percentage", sa.SmallInteger(), nullable=False),
        sa.Column("message", sa.Text()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("queue", sa.String(100)),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("run_at", UtcDateTime()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("lock_key", sa.String(200)),
        sa.Column("idempotency_key", sa.String(200)),
        sa.Column("context", LongText),
        sa.Column("metadata", JsonObject),
        sa.Column("error", LongText),
        sa.Column("requests", sa.BigInteger()),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("cached_tokens", sa.BigInteger()),
    )
    op.create_index(f"ix_{PREFIX}activity_status_created", activity.name, ["status", "created_at"])
    op.create_index(f"ix_{PREFIX}activity_created", activity.name, ["created_at"])
    op.create_index(f"uq_{PREFIX}activity_idempotency_key", activity.name, ["idempotency_key"], unique=True)

    log = op.create_table(
        f"{PREFIX}activity_log",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column(
            "activity_id",
            sa.Uuid(),
            sa.ForeignKey(f"{PREFIX}activity.agent_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("status", STATUS, nullable=False),
        sa.Column("message", LongText, nullable=False),
        sa.Column("percentage", sa.SmallInteger()),
    )
    op.create_index(f"ix_{PREFIX}activity_log_activity", log.name, ["activity_id", "id"])

    result = op.create_table(
        f"{PREFIX}result",
        sa.Column(
            "agent_id",
            sa.Uuid(),
            sa.ForeignKey(f"{PREFIX}activity.agent_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("value", LongText, nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
    )
    op.create_index(f"ix_{PREFIX}result_expires", result.name, ["expires_at"])

    queue = op.create_table(
        f"{PREFIX}queue",
        sa.Column("agent_id", sa.Uuid(), primary_key=True),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(200)),
    )
    op.create_index(f"ix_{PREFIX}queue_lane", queue.name, ["queue", "lane", "at"])

    watch = op.create_table(
        f"{PREFIX}watch",
        sa.Column("agent_id", sa.Uuid(), primary_key=True),
        sa.Column("mailbox", sa.String(200), primary_key=True),
        sa.Column("lapses_at", sa.BigInteger(), nullable=False),
    )
    op.create_index(f"ix_{PREFIX}watch_lapses_at", watch.name, ["lapses_at"])

    message = op.create_table(
        f"{PREFIX}message",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("mailbox", sa.String(200), nullable=False),
        sa.Column("text", sa.String(1000), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=False),
    )
    op.create_index(f"ix_{PREFIX}message_mailbox", message.name, ["mailbox", "id"])

    op.create_table(
        f"{PREFIX}counter",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        f"{PREFIX}leader",
        sa.Column("role", sa.String(200), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        f"{PREFIX}meta",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("value", LongText, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "meta",
        "leader",
        "counter",
        "message",
        "watch",
        "queue",
        "result",
        "activity_log",
        "activity",
    ):
        op.drop_table(f"{PREFIX}{table}")
