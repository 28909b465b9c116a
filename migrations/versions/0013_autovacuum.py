"""Autovacuum parameters of the tables that each task changes, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from alembic import op

from agentexec.config import CONF

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

PARAMETERS: Mapping[str, Mapping[str, object]] = {
    "queue": {
        "autovacuum_vacuum_threshold": 1000,
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_cost_delay": 0,
        "autovacuum_analyze_scale_factor": 0.02,
        "vacuum_truncate": "false",
    },
    "activity": {"autovacuum_vacuum_scale_factor": 0.05, "autovacuum_analyze_scale_factor": 0.02},
}


def upgrade() -> None:
    for table, parameters in PARAMETERS.items():
        _alter(table, "SET", [f"{name} = {value}" for name, value in parameters.items()])


def downgrade() -> None:
    for table, parameters in PARAMETERS.items():
        _alter(table, "RESET", list(parameters))


def _alter(table: str, action: str, parameters: list[str]) -> None:
    # Neither reads nor writes wait for it.
    if op.get_context().dialect.name == "postgresql":
        op.execute(f'ALTER TABLE "{CONF.table_prefix}{table}" {action} ({", ".join(parameters)})')
