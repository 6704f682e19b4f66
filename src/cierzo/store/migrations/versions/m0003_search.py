"""Full-text search over titles and messages.

Both indexes take words that are already folded and cut (`cierzo.store.folding`), so each is told not to think:
SQLite's ``ascii`` tokenizer cuts at spaces only, since every other sign of ASCII has been cut out before, and
PostgreSQL gets the words as an array.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SQLITE = (
    """CREATE VIRTUAL TABLE search_index USING fts5(
        words, content='search_texts', content_rowid='number', tokenize='ascii', detail='none', prefix='1 2 3')""",
    """CREATE TRIGGER search_texts_insert AFTER INSERT ON search_texts BEGIN
        INSERT INTO search_index(rowid, words) VALUES (new.number, new.words); END""",
    """CREATE TRIGGER search_texts_delete AFTER DELETE ON search_texts BEGIN
        INSERT INTO search_index(search_index, rowid, words) VALUES ('delete', old.number, old.words); END""",
    """CREATE TRIGGER search_texts_update AFTER UPDATE ON search_texts BEGIN
        INSERT INTO search_index(search_index, rowid, words) VALUES ('delete', old.number, old.words);
        INSERT INTO search_index(rowid, words) VALUES (new.number, new.words); END""",
)

POSTGRES = (
    """ALTER TABLE search_texts ADD COLUMN vector tsvector
        GENERATED ALWAYS AS (array_to_tsvector(string_to_array(words, ' '))) STORED""",
    "CREATE INDEX search_texts_vector ON search_texts USING gin (vector) WITH (fastupdate = off)",
)


def upgrade() -> None:
    """Make the table of words and hang each database's own index on it."""
    op.create_table(
        "search_texts",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("conversation", sa.Text, sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
        sa.Column("message", sa.Text, sa.ForeignKey("messages.id", ondelete="CASCADE")),
        sa.Column("words", sa.Text, nullable=False),
        sa.UniqueConstraint("message", name="search_texts_message"),
    )
    op.create_index("search_texts_conversation", "search_texts", ["conversation"])
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRES:
        op.execute(statement)
