"""Jobs keep the name of their trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the column; jobs from before have no trace."""
    op.add_column("jobs", sa.Column("trace", sa.String()))
