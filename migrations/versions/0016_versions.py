"""Versions of code: of runs, and of workers' tasks; and the journals of runs that were given up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import ExactText, LongText, UtcDateTime

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
ACTIVITY, WORKER, HISTORY = f"{PREFIX}activity", f"{PREFIX}worker", f"{PREFIX}journal_history"


def upgrade() -> None:
    op.add_column(ACTIVITY, sa.Column("version", ExactText(100)))
    op.add_column(WORKER, sa.Column("versions", LongText()))
    # `create_all` adds tables, but no columns.
    existing = () if op.get_context().as_sql else sa.inspect(op.get_bind()).get_table_names()
    if HISTORY not in existing:
        op.create_table(
            HISTORY,
            sa.Column(
                "agent_id",
                sa.Uuid(),
                sa.ForeignKey(f"{ACTIVITY}.agent_id", ondelete="CASCADE"),
                primary_key=True,
            ),
            sa.Column("run", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("path", ExactText(255), primary_key=True),
            sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("kind", sa.String(10), nullable=False),
            sa.Column("input_hash", sa.String(64), nullable=False),
            sa.Column("value", LongText(), nullable=False),
            sa.Column("epoch", sa.Integer(), nullable=False),
            sa.Column("created_at", UtcDateTime(), nullable=False),
        )


def downgrade() -> None:
    op.drop_table(HISTORY)
    op.drop_column(WORKER, "versions")
    op.drop_column(ACTIVITY, "version")
