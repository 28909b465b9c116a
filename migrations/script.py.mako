"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agentexec.config import CONF

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

PREFIX = CONF.table_prefix


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
