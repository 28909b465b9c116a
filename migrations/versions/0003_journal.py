"""The journal of durable runs, approvals, and usage by model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from agentexec.config import CONF
from agentexec.db.columns import JsonObject, LongText, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
EXACT_TEXT = sa.String(255).with_variant(
    mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)


def upgrade() -> None:
    op.add_column(f"{PREFIX}activity", sa.Column("usage", JsonObject))
    op.create_table(
        f"{PREFIX}journal",
        sa.Column(
            "agent_id",
            sa.Uuid(),
            sa.ForeignKey(f"{PREFIX}activity.agent_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("path", EXACT_TEXT, primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("input_hash", sa.String(64), nullable=False),
        sa.Column("value", LongText, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )

    approval = op.create_table(
        f"{PREFIX}approval",
        sa.Column(
            "agent_id",
            sa.Uuid(),
            sa.ForeignKey(f"{PREFIX}activity.agent_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("path", EXACT_TEXT, primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("call_id", EXACT_TEXT, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("tool", LongText, nullable=False),
        sa.Column("arguments", LongText, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("message", LongText),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("decided_at", UtcDateTime()),
        sa.Column("wake_at", UtcDateTime()),
    )
    op.create_index(f"ix_{PREFIX}approval_status", approval.name, ["status", "created_at"])
    op.create_index(f"ix_{PREFIX}approval_wake", approval.name, ["wake_at"])


def downgrade() -> None:
    op.drop_table(f"{PREFIX}approval")
    op.drop_table(f"{PREFIX}journal")
    op.drop_column(f"{PREFIX}activity", "usage")
