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


class Limits(BaseModel):
    """The most that is taken."""

    text: int = Field(description="characters of a message; the request around it is bounded too")
    title: int = Field(description="characters of a title")
    stops: int = Field(description="stop texts")
    stop_length: int = Field(description="characters of one of them")
    alternatives: int = Field(description="alternatives that a token reports")
    request: int = Field(description="bytes of a request")
    file: int = Field(description="bytes of a file of conversations")


class EngineInfo(BaseModel):
    """What answers."""

    engine: str
    model: str
    context: int = Field(description="the model's window in tokens; prompt and answer share it")
    template: str
    verified: bool = Field(description="whether the template is Mistral's own, and not the one in the model's file")
    honours: list[str] = Field(description="fields of a sampling that change its answers")
    details: list[str] = Field(description="what its tokens carry: ids, logprobs, alternatives")
    slots: int = Field(description="answers that it writes at the same time; others wait")
    where: str
    takes: str = Field(description="what of a prompt goes to it: ids, text or messages")
    names: dict[str, str] = Field(
        description="what its server calls fields of a sampling, where it calls them otherwise"
    )
    version: str = Field(description="of its server, where it tells one")
    limits: Limits
