"""agentexec's tables.

After an upgrade of agentexec, add a revision with this `upgrade` again: it does what is missing.
"""

from alembic import op

from agentexec.schema import migrate

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring agentexec's tables to the revision of the installed release."""
    migrate.upgrade(op.get_bind().engine)


def downgrade() -> None:
    """Remove agentexec's tables."""
    migrate.downgrade(op.get_bind().engine, "base")
