"""How many messages the window had no room for when an answer was asked for; not known of older answers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; of what is there nobody has counted."""
    op.add_column("answers", sa.Column("dropped", sa.Integer))
