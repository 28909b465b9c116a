"""Queue and start in the index by status, which then answers lists and counts by queue alone."""

from __future__ import annotations

from alembic import op

from agentexec.config import CONF

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

ACTIVITY = f"{CONF.table_prefix}activity"
INDEX = f"ix_{CONF.table_prefix}activity_status_created"


def upgrade() -> None:
    # Tables of `create_all` may have it already, so it keeps its name.
    op.drop_index(INDEX, ACTIVITY)
    op.create_index(INDEX, ACTIVITY, ["status", "created_at", "agent_id", "queue", "run_at"])


def downgrade() -> None:
    op.drop_index(INDEX, ACTIVITY)
    op.create_index(INDEX, ACTIVITY, ["status", "created_at", "agent_id"])
