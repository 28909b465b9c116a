"""Crashes of a task's processes since its last recorded step: these end it, not the crashes in all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ACTIVITY = f"{CONF.table_prefix}activity"


def upgrade() -> None:
    # With a default, databases add a column without rewriting the rows.
    op.add_column(
        ACTIVITY, sa.Column("crashes_in_row", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )


def downgrade() -> None:
    op.drop_column(ACTIVITY, "crashes_in_row")
