"""Labels of conversations in an index of their own, and an index by their latest change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.activity.queries.labels import label_rows
from agentexec.config import CONF
from agentexec.db.columns import ExactText, JsonObject

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None

CONVERSATION = f"{CONF.table_prefix}conversation"
LABEL = f"{CONVERSATION}_label"
UPDATED = f"ix_{CONVERSATION}_updated"

PAGE = 1000


def upgrade() -> None:
    # `create_all` adds tables with their indexes, and none to a table that is there.
    inspector = None if op.get_context().as_sql else sa.inspect(op.get_bind())
    if inspector is None or not inspector.has_table(LABEL):
        _create_label()
        if inspector is not None:
            _copy_labels()
    if inspector is None or UPDATED not in {index["name"] for index in inspector.get_indexes(CONVERSATION)}:
        op.create_index(UPDATED, CONVERSATION, ["updated_at", "id"])


def _create_label() -> None:
    op.create_table(
        LABEL,
        sa.Column(
            "conversation_id",
            ExactText(180),
            sa.ForeignKey(f"{CONVERSATION}.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("name", ExactText(128), primary_key=True),
        sa.Column("value", ExactText(128), nullable=False),
    )
    op.create_index(f"ix_{LABEL}_value", LABEL, ["name", "value", "conversation_id"])


def _copy_labels() -> None:
    """Add the labels of the conversations that are there."""
    conversation = sa.table(
        CONVERSATION, sa.column("id", ExactText(180)), sa.column("metadata", JsonObject())
    )
    label = sa.table(LABEL, *(sa.column(name) for name in ("conversation_id", "name", "value")))
    query = sa.select(conversation).order_by(conversation.c.id).limit(PAGE)
    connection, page = op.get_bind(), query
    while rows := connection.execute(page).mappings().all():
        labels = [
            {"conversation_id": row["id"], "name": name, "value": value}
            for row in rows
            for name, value in label_rows(row["metadata"])
        ]
        if labels:
            connection.execute(label.insert(), labels)
        page = query.where(conversation.c.id > rows[-1]["id"])


def downgrade() -> None:
    op.drop_index(UPDATED, CONVERSATION)
    op.drop_table(LABEL)
