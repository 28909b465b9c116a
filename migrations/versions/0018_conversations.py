"""Conversations: their messages, and the items of their histories."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import BigId, ExactText, JsonObject, LongText, UtcDateTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

CONVERSATION = f"{CONF.table_prefix}conversation"
MESSAGE, ITEM = f"{CONVERSATION}_message", f"{CONVERSATION}_item"


def upgrade() -> None:
    # `create_all` adds tables with their indexes.
    existing = () if op.get_context().as_sql else sa.inspect(op.get_bind()).get_table_names()
    if CONVERSATION not in existing:
        _create_conversation()
    if MESSAGE not in existing:
        _create_message()
    if ITEM not in existing:
        _create_item()


def _create_conversation() -> None:
    op.create_table(
        CONVERSATION,
        sa.Column("id", ExactText(180), primary_key=True),
        sa.Column("task", sa.String(255)),
        sa.Column("metadata", JsonObject()),
        sa.Column("last_message", sa.BigInteger(), nullable=False),
        sa.Column("last_taken", sa.BigInteger(), nullable=False),
        sa.Column("last_item", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
    )


def _owner() -> sa.Column[str]:
    return sa.Column(
        "conversation_id",
        ExactText(180),
        sa.ForeignKey(f"{CONVERSATION}.id", ondelete="CASCADE"),
        primary_key=True,
    )


def _create_message() -> None:
    op.create_table(
        MESSAGE,
        _owner(),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("text", LongText(), nullable=False),
        sa.Column("if_busy", sa.String(10), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid()),
        sa.Column("position", sa.BigInteger()),
        sa.Column("idempotency_key", ExactText(200)),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("taken_at", UtcDateTime()),
    )
    op.create_index(f"ix_{MESSAGE}_task", MESSAGE, ["task_id"])
    op.create_index(f"ix_{MESSAGE}_state", MESSAGE, ["conversation_id", "state", "number"])
    op.create_index(f"ix_{MESSAGE}_position", MESSAGE, ["conversation_id", "position"])
    op.create_index(f"ix_{MESSAGE}_key", MESSAGE, ["conversation_id", "idempotency_key"], unique=True)


def _create_item() -> None:
    op.create_table(
        ITEM,
        _owner(),
        sa.Column("number", BigId, primary_key=True, autoincrement=False),
        sa.Column("removed_by", sa.BigInteger()),
        sa.Column("turn_id", sa.Uuid()),
        sa.Column("place", ExactText(80)),
        sa.Column("item", LongText(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_index(f"ix_{ITEM}_turn", ITEM, ["turn_id", "place"], unique=True)


def downgrade() -> None:
    for table in (ITEM, MESSAGE, CONVERSATION):
        op.drop_table(table)
