"""Live events: short-lived events of tasks, and their followers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import LongText

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix


def upgrade() -> None:
    event = op.create_table(
        f"{PREFIX}event",
        sa.Column("agent_id", sa.Uuid(), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("text", LongText, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    op.create_index(f"ix_{PREFIX}event_at", event.name, ["at"])

    follow = op.create_table(
        f"{PREFIX}follow",
        sa.Column("agent_id", sa.Uuid(), primary_key=True),
        sa.Column("mailbox", sa.String(200), primary_key=True),
        sa.Column("lapses_at", sa.BigInteger(), nullable=False),
    )
    op.create_index(f"ix_{PREFIX}follow_lapses_at", follow.name, ["lapses_at"])


def downgrade() -> None:
    for table in ("follow", "event"):
        op.drop_table(f"{PREFIX}{table}")
