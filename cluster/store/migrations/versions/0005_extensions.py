"""Jobs keep what became of their prompt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the column; prompts from before were not extended."""
    op.add_column("jobs", sa.Column("extension", sa.JSON(none_as_null=True)))
