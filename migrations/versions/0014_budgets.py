"""Budgets: what tasks may spend, and what they have spent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import ExactText, LongText, UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
ACTIVITY, BUDGET, HOLD = f"{PREFIX}activity", f"{PREFIX}budget", f"{PREFIX}budget_hold"


def upgrade() -> None:
    op.add_column(ACTIVITY, sa.Column("budget", LongText()))
    # `create_all` adds tables with their indexes, but no columns.
    existing = () if op.get_context().as_sql else sa.inspect(op.get_bind()).get_table_names()
    if BUDGET not in existing:
        _create_budget()
    if HOLD not in existing:
        _create_hold()


def _create_budget() -> None:
    op.create_table(
        BUDGET,
        sa.Column("name", ExactText(255), primary_key=True),
        sa.Column("title", LongText(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), sa.ForeignKey(f"{ACTIVITY}.agent_id", ondelete="CASCADE")),
        sa.Column("unit", sa.String(10), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("raised", sa.BigInteger(), nullable=False),
        sa.Column("raises", LongText(), nullable=False),
        sa.Column("spent_nanos", sa.BigInteger(), nullable=False),
        sa.Column("spent_tokens", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(10)),
        sa.Column("starts_at", UtcDateTime()),
        sa.Column("ends_at", UtcDateTime()),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
    )
    op.create_index(f"ix_{BUDGET}_activity", BUDGET, ["agent_id"])
    op.create_index(f"ix_{BUDGET}_ends", BUDGET, ["ends_at"])


def _create_hold() -> None:
    op.create_table(
        HOLD,
        sa.Column("hold_id", sa.Uuid(), primary_key=True),
        sa.Column("budget", ExactText(255), primary_key=True),
        sa.Column(
            "agent_id", sa.Uuid(), sa.ForeignKey(f"{ACTIVITY}.agent_id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("path", ExactText(255), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("nanos", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_index(f"ix_{HOLD}_budget", HOLD, ["budget"])
    op.create_index(f"ix_{HOLD}_activity", HOLD, ["agent_id"])


def downgrade() -> None:
    op.drop_table(HOLD)
    op.drop_table(BUDGET)
    op.drop_column(ACTIVITY, "budget")
