"""Workers tell which models they have loaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the column; workers from before have told nothing."""
    op.add_column("workers", sa.Column("loaded", sa.JSON(), nullable=False, server_default="[]"))
