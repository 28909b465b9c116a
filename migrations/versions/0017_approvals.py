"""Approvals for teams: who decided, changed arguments, default answers, reminders, and rules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF
from agentexec.db.columns import ExactText, JsonObject, LongText, UtcDateTime, of_rows_with

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix
ACTIVITY, APPROVAL, RULE = f"{PREFIX}activity", f"{PREFIX}approval", f"{PREFIX}approval_rule"
NOTICE_INDEX = f"ix_{APPROVAL}_notice"


def _columns() -> list[sa.Column]:
    return [
        sa.Column("arguments_schema", LongText()),
        sa.Column("decided_arguments", LongText()),
        sa.Column("decided_by", sa.String(200)),
        sa.Column("decided_from", sa.String(200)),
        sa.Column("reason", LongText()),
        sa.Column("rule_id", sa.Uuid()),
        sa.Column("default_answer", sa.String(10)),
        sa.Column("superseded_at", UtcDateTime()),
        sa.Column("webhook", sa.Text()),
        sa.Column("notice_at", UtcDateTime()),
        sa.Column("notices", sa.Integer()),
        sa.Column("reminder_seconds", sa.Double()),
    ]


def upgrade() -> None:
    for column in _columns():
        op.add_column(APPROVAL, column)
    op.create_index(NOTICE_INDEX, APPROVAL, ["notice_at"], **of_rows_with("notice_at"))
    # `create_all` adds tables with their indexes, but no columns.
    existing = () if op.get_context().as_sql else sa.inspect(op.get_bind()).get_table_names()
    if RULE not in existing:
        _create_rule()


def _create_rule() -> None:
    op.create_table(
        RULE,
        sa.Column("rule_id", sa.Uuid(), primary_key=True),
        sa.Column("scope", sa.String(20), nullable=False),
        sa.Column("scope_key", ExactText(80), nullable=False),
        sa.Column("agent_id", sa.Uuid(), sa.ForeignKey(f"{ACTIVITY}.agent_id", ondelete="CASCADE")),
        sa.Column("labels", JsonObject()),
        sa.Column("tool", LongText(), nullable=False),
        sa.Column("conditions", LongText()),
        sa.Column("arguments", LongText()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(200)),
        sa.Column("created_from", sa.String(200)),
        sa.Column("reason", LongText()),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("revoked_at", UtcDateTime()),
        sa.Column("revoked_by", sa.String(200)),
    )
    op.create_index(f"ix_{RULE}_scope", RULE, ["scope_key", "expires_at"])
    op.create_index(f"ix_{RULE}_expires", RULE, ["expires_at"])
    op.create_index(f"ix_{RULE}_activity", RULE, ["agent_id"])


def downgrade() -> None:
    op.drop_table(RULE)
    op.drop_index(NOTICE_INDEX, APPROVAL)
    for column in reversed(_columns()):
        op.drop_column(APPROVAL, column.name)
