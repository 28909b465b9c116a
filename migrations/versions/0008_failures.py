"""Expiry and debounce of tasks, and what follows their ends: `on_failure` handlers and webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import BigId, ExactText, LongText, UtcDateTime, of_rows_with

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
ACTIVITY, FOLLOW_UP, WEBHOOK = f"{PREFIX}activity", f"{PREFIX}follow_up", f"{PREFIX}webhook"


def upgrade() -> None:
    op.add_column(ACTIVITY, sa.Column("expires_at", UtcDateTime()))
    op.add_column(ACTIVITY, sa.Column("debounce_key", ExactText(200)))
    op.add_column(ACTIVITY, sa.Column("webhook", sa.Text()))
    op.create_index(
        f"uq_{PREFIX}activity_debounce_key",
        ACTIVITY,
        ["debounce_key"],
        unique=True,
        **of_rows_with("debounce_key"),
    )
    op.create_index(f"ix_{PREFIX}activity_expires", ACTIVITY, ["expires_at"], **of_rows_with("expires_at"))
    # `create_all` adds tables with their indexes, but no columns.
    existing = () if op.get_context().as_sql else sa.inspect(op.get_bind()).get_table_names()
    if FOLLOW_UP not in existing:
        _create_follow_up()
    if WEBHOOK not in existing:
        _create_webhook()


def _create_follow_up() -> None:
    op.create_table(
        FOLLOW_UP,
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        _activity_column(),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("is_failure", sa.Boolean(), nullable=False),
    )
    op.create_index(f"ix_{FOLLOW_UP}_queue", FOLLOW_UP, ["queue", "id"])
    op.create_index(f"ix_{FOLLOW_UP}_activity", FOLLOW_UP, ["agent_id"])


def _create_webhook() -> None:
    op.create_table(
        WEBHOOK,
        sa.Column("message_id", sa.Uuid(), primary_key=True),
        _activity_column(),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("body", LongText()),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("next_at", UtcDateTime()),
        sa.Column("outcome", sa.Text()),
    )
    op.create_index(f"ix_{WEBHOOK}_next", WEBHOOK, ["next_at"])
    op.create_index(f"ix_{WEBHOOK}_activity", WEBHOOK, ["agent_id"])


def _activity_column() -> sa.Column[object]:
    return sa.Column(
        "agent_id", sa.Uuid(), sa.ForeignKey(f"{ACTIVITY}.agent_id", ondelete="CASCADE"), nullable=False
    )


def downgrade() -> None:
    op.drop_table(WEBHOOK)
    op.drop_table(FOLLOW_UP)
    op.drop_index(f"ix_{PREFIX}activity_expires", ACTIVITY)
    op.drop_index(f"uq_{PREFIX}activity_debounce_key", ACTIVITY)
    for column in ("webhook", "debounce_key", "expires_at"):
        op.drop_column(ACTIVITY, column)
