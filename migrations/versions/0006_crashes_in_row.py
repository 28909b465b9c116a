"""Deaths of a task's process since its journal last grew: those end it, not all of them."""

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
    # With a default the databases add a column without writing the rows anew.
    op.add_column(
        ACTIVITY, sa.Column("crashes_in_row", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )


def downgrade() -> None:
    op.drop_column(ACTIVITY, "crashes_in_row")
