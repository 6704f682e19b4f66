"""How answers came about, their tokens, and the logs of those being written."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "answers",
        sa.Column("message", sa.Text, sa.ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("writer", sa.Text, nullable=False),
        sa.Column("logged", sa.Integer, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_hash", sa.Text, nullable=False),
        sa.Column("template", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("continues", sa.Text),
        sa.Column("kept", sa.Integer, nullable=False),
        sa.Column("sampling", sa.Text, nullable=False),
        sa.Column("prompt_ids", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("finish", sa.Text),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("ended", sa.BigInteger),
        sa.Column("phases", sa.LargeBinary),
        sa.Column("tokens", sa.LargeBinary),
        sa.CheckConstraint("state IN ('writing', 'done')", name="answers_state"),
    )
    writing = sa.text("state = 'writing'")
    op.create_index("answers_writing", "answers", ["beat"], sqlite_where=writing, postgresql_where=writing)
    op.create_table(
        "reply_events",
        sa.Column("message", sa.Text, sa.ForeignKey("answers.message", ondelete="CASCADE"), primary_key=True),
        sa.Column("first", sa.Integer, primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
