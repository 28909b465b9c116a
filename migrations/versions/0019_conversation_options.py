"""Options of a conversation's turns, which every turn has, whoever sends its message."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import JsonObject

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CONVERSATION = f"{CONF.table_prefix}conversation"


def upgrade() -> None:
    # `create_all` of this release may have added the whole table to an older schema.
    context = op.get_context()
    existing = () if context.as_sql else sa.inspect(op.get_bind()).get_columns(CONVERSATION)
    if "options" not in {column["name"] for column in existing}:
        op.add_column(CONVERSATION, sa.Column("options", JsonObject()))


def downgrade() -> None:
    op.drop_column(CONVERSATION, "options")
