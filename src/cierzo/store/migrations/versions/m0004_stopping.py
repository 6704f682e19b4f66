"""When somebody else than its writer asked that an answer be stopped: its writer sees it with its next sign of life."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; nobody has asked yet."""
    op.add_column("answers", sa.Column("stopping", sa.BigInteger))
