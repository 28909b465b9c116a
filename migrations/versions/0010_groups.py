"""Locks and limits of concurrency: the tasks that run one at a time, or so many at a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import ExactText, of_rows_with

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
ACTIVITY, QUEUE, MEMBER = f"{PREFIX}activity", f"{PREFIX}queue", f"{PREFIX}queue_member"


def upgrade() -> None:
    op.add_column(ACTIVITY, sa.Column("held_lock", ExactText(200)))
    op.add_column(ACTIVITY, sa.Column("concurrency_key", ExactText(200)))
    op.create_index(
        f"uq_{ACTIVITY}_held_lock", ACTIVITY, ["held_lock"], unique=True, **of_rows_with("held_lock")
    )
    op.add_column(QUEUE, sa.Column("grouped", sa.SmallInteger(), nullable=False, server_default=sa.text("0")))
    # `create_all` adds tables with their indexes, but no columns.
    existing = () if op.get_context().as_sql else sa.inspect(op.get_bind()).get_table_names()
    if MEMBER not in existing:
        op.create_table(
            MEMBER,
            sa.Column("agent_id", sa.Uuid(), primary_key=True),
            sa.Column("name", ExactText(410), primary_key=True),
            sa.Column("queue", sa.String(100), nullable=False),
            sa.Column("state", sa.SmallInteger(), nullable=False),
            sa.Column("priority", sa.SmallInteger(), nullable=False),
            sa.Column("place", sa.BigInteger(), nullable=False),
        )
        op.create_index(f"ix_{MEMBER}_line", MEMBER, ["queue", "name", "state", "priority", "place"])


def downgrade() -> None:
    op.drop_table(MEMBER)
    op.drop_column(QUEUE, "grouped")
    op.drop_index(f"uq_{ACTIVITY}_held_lock", ACTIVITY)
    for column in ("concurrency_key", "held_lock"):
        op.drop_column(ACTIVITY, column)
