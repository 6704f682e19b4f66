"""What the routes give that a page shows: for validation and for ``/openapi.json``."""

from __future__ import annotations

from pydantic import BaseModel, Field

from cierzo.api.conversations_types import Conversation, Message


class Shown(BaseModel):
    """One message of a branch."""

    message: Message
    html: list[str] = Field(description="its Markdown as blocks of HTML; none while it is being written")
    siblings: list[str] = Field(description="ids of all messages that follow the same one, this one included, in order")


class Branch(BaseModel):
    """The end of a branch, or what comes before a message of it."""

    conversation: Conversation
    messages: list[Shown] = Field(description="oldest first")
    earlier: bool = Field(description="whether the branch has messages before these")


class HtmlEvent(BaseModel):
    """`event: html`: what the answer is so far, from a block on."""

    first: int = Field(description="place of the first of these blocks; those before it stay as they are")
    blocks: list[str] = Field(description="all blocks from there on")
    tokens: int = Field(description="tokens so far, those that it began with included")
