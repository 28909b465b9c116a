"""The trace context of the call that enqueued a task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ACTIVITY = f"{CONF.table_prefix}activity"


def upgrade() -> None:
    op.add_column(ACTIVITY, sa.Column("trace_context", sa.String(600)))


def downgrade() -> None:
    op.drop_column(ACTIVITY, "trace_context")
