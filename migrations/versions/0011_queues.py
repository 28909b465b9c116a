"""Queues: workers that serve several, and pauses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import ExactText, LongText, UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

WORKER = f"{CONF.table_prefix}worker"
PAUSE = f"{CONF.table_prefix}queue_pause"


def upgrade() -> None:
    op.add_column(WORKER, sa.Column("queues", LongText()))
    op.create_table(
        PAUSE,
        sa.Column("queue", ExactText(100), primary_key=True),
        sa.Column("paused_at", UtcDateTime(), nullable=False),
        sa.Column("paused_by", sa.String(200), nullable=False),
        sa.Column("reason", LongText()),
        sa.Column("resumed_at", UtcDateTime()),
        sa.Column("resumed_by", sa.String(200)),
        if_not_exists=True,  # `create_all` adds tables, but no columns
    )


def downgrade() -> None:
    op.drop_table(PAUSE)
    op.drop_column(WORKER, "queues")
