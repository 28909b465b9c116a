"""Fairness keys: whose task it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ACTIVITY = f"{CONF.table_prefix}activity"
QUEUE = f"{CONF.table_prefix}queue"
RANKED = sa.text("lane + 0 BETWEEN 10 AND 19")
INDEX = f"ix_{CONF.table_prefix}queue_flow"


def upgrade() -> None:
    op.add_column(ACTIVITY, sa.Column("fairness_key", sa.String(200)))
    op.add_column(ACTIVITY, sa.Column("fairness_weight", sa.Double()))
    op.add_column(QUEUE, sa.Column("flow", sa.BigInteger()))
    op.add_column(QUEUE, sa.Column("step", sa.BigInteger()))
    op.create_index(
        INDEX,
        QUEUE,
        ["queue", "lane", "flow", "at"],
        postgresql_where=RANKED,
        sqlite_where=RANKED,
    )


def downgrade() -> None:
    op.drop_index(INDEX, QUEUE)
    op.drop_column(QUEUE, "step")
    op.drop_column(QUEUE, "flow")
    op.drop_column(ACTIVITY, "fairness_weight")
    op.drop_column(ACTIVITY, "fairness_key")
