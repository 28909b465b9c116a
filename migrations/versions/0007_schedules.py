"""Schedules: tasks at times of the clock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import ExactText, JsonObject, LongText, UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEDULE = f"{CONF.table_prefix}schedule"


def upgrade() -> None:
    op.create_table(
        SCHEDULE,
        sa.Column("queue", ExactText(100), primary_key=True),
        sa.Column("name", ExactText(200), primary_key=True),
        sa.Column("task_name", sa.String(200), nullable=False),
        sa.Column("cron", sa.String(200), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("context", LongText()),
        sa.Column("labels", JsonObject()),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("repeat", sa.Integer()),
        sa.Column("backfill", sa.Boolean(), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("next_at", UtcDateTime()),
        sa.Column("last_at", UtcDateTime()),
        sa.Column("last_agent_id", sa.Uuid()),
        sa.Column("paused_at", UtcDateTime()),
        if_not_exists=True,  # `create_all` adds tables, but no columns
    )


def downgrade() -> None:
    op.drop_table(SCHEDULE)
