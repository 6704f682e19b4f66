"""Conversations and the trees of their messages."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "conversations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("touched", sa.BigInteger, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("archived", sa.Boolean, nullable=False),
        sa.Column("deleted", sa.BigInteger),
        sa.Column("head", sa.Text),
        sa.Column("messages", sa.Integer, nullable=False),
    )
    op.create_index("conversations_listed", "conversations", ["owner", "archived", "pinned", "touched"])
    op.create_index("conversations_touched", "conversations", ["touched"])
    op.create_index("conversations_deleted", "conversations", ["deleted"])
    op.create_table(
        "messages",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("conversation", sa.Text, sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
        sa.Column("parent", sa.Text),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("client_id", sa.Text),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.CheckConstraint("role IN ('system', 'user', 'assistant')", name="messages_role"),
        sa.UniqueConstraint("conversation", "id", name="messages_in_conversation"),
        sa.UniqueConstraint("conversation", "ordinal", name="messages_ordinal"),
        sa.UniqueConstraint("conversation", "client_id", name="messages_client_id"),
        sa.UniqueConstraint("conversation", "parent", "position", name="messages_position"),
        sa.ForeignKeyConstraint(
            ["conversation", "parent"], ["messages.conversation", "messages.id"], name="messages_parent"
        ),
    )
    first = sa.text("parent IS NULL")
    op.create_index(
        "messages_first",
        "messages",
        ["conversation", "position"],
        unique=True,
        sqlite_where=first,
        postgresql_where=first,
    )
