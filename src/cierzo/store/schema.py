"""The tables, as the queries name them. `cierzo.store.migrations` makes them; a test holds the two equal.

Times are microseconds since 1970 in UTC. Order never depends on the clock: ``touched`` and ``ordinal`` only grow.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text),
    Column("title", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("touched", BigInteger, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("deleted", BigInteger),
    Column("head", Text),
    Column("messages", Integer, nullable=False),
    Index("conversations_listed", "owner", "archived", "pinned", "touched"),
    Index("conversations_touched", "touched"),
    Index("conversations_deleted", "deleted"),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conversation", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("parent", Text),
    Column("position", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("client_id", Text),
    Column("created", BigInteger, nullable=False),
    CheckConstraint("role IN ('system', 'user', 'assistant')", name="messages_role"),
    UniqueConstraint("conversation", "id", name="messages_in_conversation"),
    UniqueConstraint("conversation", "ordinal", name="messages_ordinal"),
    UniqueConstraint("conversation", "client_id", name="messages_client_id"),
    UniqueConstraint("conversation", "parent", "position", name="messages_position"),
    # A parent lies in the same conversation, whatever the code does.
    ForeignKeyConstraint(["conversation", "parent"], ["messages.conversation", "messages.id"], name="messages_parent"),
    # A unique constraint counts no two NULLs as equal, so first messages need one of their own.
    Index(
        "messages_first",
        "conversation",
        "position",
        unique=True,
        sqlite_where=text("parent IS NULL"),
        postgresql_where=text("parent IS NULL"),
    ),
)

answers = Table(
    "answers",
    metadata,
    Column("message", Text, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("writer", Text, nullable=False),
    Column("logged", Integer, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("engine", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_hash", Text, nullable=False),
    Column("template", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("continues", Text),
    Column("kept", Integer, nullable=False),
    Column("sampling", Text, nullable=False),
    Column("prompt_ids", LargeBinary, nullable=False),
    Column("reason", Text),
    Column("finish", Text),
    Column("failure", Text, nullable=False),
    Column("ended", BigInteger),
    Column("phases", LargeBinary),
    Column("tokens", LargeBinary),
    Column("stopping", BigInteger),
    Column("dropped", Integer),
    CheckConstraint("state IN ('writing', 'done')", name="answers_state"),
    Index(
        "answers_writing",
        "beat",
        sqlite_where=text("state = 'writing'"),
        postgresql_where=text("state = 'writing'"),
    ),
)

events = Table(
    "reply_events",
    metadata,
    Column("message", Text, ForeignKey("answers.message", ondelete="CASCADE"), primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# The index proper hangs on this table: an FTS5 table with triggers in SQLite, a generated tsvector with a GIN index
# in PostgreSQL. Neither can be said in these words; the migrations say them.
search_texts = Table(
    "search_texts",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("conversation", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("message", Text, ForeignKey("messages.id", ondelete="CASCADE")),
    Column("words", Text, nullable=False),
    Index("search_texts_conversation", "conversation"),
    UniqueConstraint("message", name="search_texts_message"),
)
