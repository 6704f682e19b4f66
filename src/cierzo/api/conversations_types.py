"""The requests and answers of our own routes, for validation and for ``/openapi.json``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cierzo.messages import MAX_ALTERNATIVES, MAX_STOP_LENGTH, MAX_STOPS, MAX_TEXT, Role
from cierzo.messages import Sampling as SamplingValue
from cierzo.store.records import MAX_ID, MAX_TITLE

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID, pattern=r"^[!-~]+$")]
Title = Annotated[str, Field(max_length=MAX_TITLE)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
MOST_IDS = 2_000_000


class Body(BaseModel):
    """A request. Values have the type that they should have; what is not known is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Sampling(Body):
    """How the next token is chosen; what is left out has the default of `cierzo.messages.Sampling`."""

    temperature: float | None = Field(default=None, ge=0, le=5, description="0 takes the most probable token  [0.9]")
    max_new_tokens: int | None = Field(default=None, ge=1, le=131_072, description="[256]")
    top_p: float | None = Field(default=None, ge=0, le=1, description="[0.95]")
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10, description="1 is none  [1]")
    top_k: int | None = Field(default=None, ge=0, le=200_000, description="0 is all  [0]")
    min_p: float | None = Field(default=None, ge=0, le=1, description="[0]")
    seed: int | None = Field(
        default=None, ge=0, le=2**32 - 2, description="left out, the engine chooses one and tells it"
    )
    stop: Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = Field(
        default=None, description="texts that end it"
    )
    alternatives: int | None = Field(
        default=None,
        ge=0,
        le=MAX_ALTERNATIVES,
        description="how many of the most probable tokens each token reports  [0]",
    )
    json_schema: str | dict[str, Any] | None = Field(
        default=None, description="JSON Schema that the answer is kept to, where the engine honours it; see docs/api.md"
    )

    def value(self) -> SamplingValue:
        """Return it as the value that engines take.

        Raises:
            BadSampling: A stop text is no text.
        """
        return SamplingValue.of(self.model_dump(exclude_none=True))


class Create(Body):
    """`POST /api/conversations`."""

    title: Title = Field("", description="may be left out: the first question gives it one")
    id: Id | None = Field(None, description="made by the client, so that asking twice makes one")


class Change(Body):
    """`PATCH /api/conversations/{conversation}`. What is left out stays."""

    title: Title | None = None
    pinned: bool | None = None
    archived: bool | None = None
    head: Id | None = Field(
        None, description="a message: the newest end of the branch through it becomes the end on which one builds"
    )


class Fork(Body):
    """`POST /api/messages/{message}/fork`."""

    id: Id | None = Field(None, description="of the new conversation, made by the client: asking twice makes one")


class Send(Body):
    """`POST /api/conversations/{conversation}/messages`."""

    text: Text = Field(description="the question")
    parent: Id | None = Field(
        None, description="the message that it follows: left out, the conversation's head; null, none: a first message"
    )
    client_id: Id | None = Field(
        None, description="made by the client: sent again with it, the question is there once and answered once"
    )
    sampling: Sampling = Field(default_factory=Sampling)
    against: Sampling | None = Field(None, description="how a second answer to the same prompt is made, to compare")
    system: Text | None = Field(None, description="the system prompt from here on; left out, it stays; empty, it ends")


class Again(Body):
    """`POST /api/messages/{message}/again`."""

    client_id: Id | None = Field(None, description="made by the client: sent again with it, there is one answer")
    sampling: Sampling = Field(default_factory=Sampling)


class Continue(Again):
    """`POST /api/replies/{reply}/continue`."""

    at: int | None = Field(
        None, ge=0, le=2**31, description="how many tokens to keep; left out, all, of an answer that was cut"
    )
    token: int | None = Field(None, ge=0, le=2**31, description="the token to go on with after those")


class Said(Body):
    """One message that is not stored."""

    role: Role
    text: Text


class AskPrompt(Body):
    """`POST /api/prompt`: either `messages`, or `conversation` and `text`."""

    messages: Annotated[list[Said], Field(min_length=1, max_length=100_000)] | None = None
    conversation: Id | None = None
    text: Text | None = Field(None, description="the question that would be sent")
    parent: Id | None = Field(None, description="as in sending a message")
    system: Text | None = Field(None, description="as in sending a message")
    sampling: Sampling = Field(default_factory=Sampling)


class AskTokens(Body):
    """`POST /api/tokens`."""

    messages: Annotated[list[Said], Field(min_length=1, max_length=100_000)]
    sampling: Sampling = Field(default_factory=Sampling)


class Error(BaseModel):
    """What went wrong."""

    type: str = Field(description="name of a class of `cierzo.errors`; `Refused` before any of them could know")
    message: str = Field(description="one line for a person: what happened, then what to do")


class ApiError(BaseModel):
    """Every error of these routes."""

    error: Error


class Conversation(BaseModel):
    """One conversation, without its messages."""

    id: str
    title: str
    created: datetime
    updated: datetime
    pinned: bool
    archived: bool
    deleted: datetime | None = Field(description="when it was put into the bin")
    head: str | None = Field(description="the message on which the next one builds; null: the next is a first one")
    messages: int = Field(description="how many there are, all branches together")


FORKED: dict[int | str, dict[str, Any]] = {
    200: {"model": Conversation, "description": "It was made with this `id` before"},
    201: {"model": Conversation, "description": "It is made"},
}
"""What a route gives that copies a branch."""


class Timings(BaseModel):
    """Seconds spent in each part of an answer."""

    queue: float
    load: float
    prefill: float
    first_token: float
    decode: float
    engine_rate: float | None


class Finish(BaseModel):
    """How the engine says that an answer ended."""

    reason: str
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    timings: Timings
    seed: int | None
    stop: str | None
    kept: int = Field(description="how many of the answer's tokens it began with, written before")
    sent: str = Field(description="what of the prompt went to the engine: ids, text or messages")
    rate: float | None = Field(description="tokens per second while decoding; null where nobody can tell")


class SamplingUsed(BaseModel):
    """The sampling as it was sent to the engine."""

    temperature: float
    max_new_tokens: int
    top_p: float
    repetition_penalty: float
    top_k: int
    min_p: float
    seed: int | None
    stop: list[str]
    alternatives: int
    json_schema: str | None = Field(description="the JSON Schema that the answer was kept to, as one line")


class Facts(BaseModel):
    """How an answer came about."""

    model_config = ConfigDict(protected_namespaces=())

    state: Literal["writing", "done"]
    engine: str
    model: str
    model_hash: str = Field(description="SHA-256 of the model's file")
    template: str
    sampling: SamplingUsed
    route: str
    continues: str | None = Field(description="the answer with whose first tokens this one begins")
    kept: int = Field(description="how many tokens those are")
    dropped: int | None = Field(
        description="messages before the question that the window had no room for; null where nobody knows"
    )
    logged: int = Field(description="events in its log so far")
    reason: str | None = Field(
        description="eos_token, stop_sequence, length, stopped, failed, or interrupted: its process ended before it"
    )
    finish: Finish | None
    failure: str = Field(description="the sentence of the error that ended it")
    ended: datetime | None


class Message(BaseModel):
    """One message of the tree."""

    id: str
    conversation: str
    parent: str | None
    position: int = Field(description="place among the children of its parent, from 0")
    order: int = Field(description="place among all messages of the conversation, from 1")
    role: Role
    text: str = Field(description="empty while an answer is being written: follow its events")
    created: datetime
    client_id: str | None
    answer: Facts | None = Field(description="of an answer of a model")


BEGUN: dict[int | str, dict[str, Any]] = {
    200: {"model": Message, "description": "It was begun with this `client_id` before"},
    201: {"model": Message, "description": "It is being written"},
}
"""What a route gives that begins one answer."""


class Tree(BaseModel):
    """A conversation with all its messages, parents before children."""

    conversation: Conversation
    messages: list[Message]


class ConversationList(BaseModel):
    """Some conversations: pinned ones first, then the one last written to."""

    conversations: list[Conversation]
    after: str | None = Field(description="where to go on; null at the end")


class SnippetPart(BaseModel):
    """A piece of the text around a match."""

    text: str
    match: bool


class Hit(BaseModel):
    """One place that a search found."""

    conversation: str
    title: str
    message: str | None = Field(description="null where the title was found")
    role: Role | None
    snippet: list[SnippetPart]
    created: datetime


class HitList(BaseModel):
    """Some hits, newest first."""

    hits: list[Hit]
    before: int | None = Field(description="where to go on; null at the end")


class Sent(BaseModel):
    """A question and its answers, which are being written."""

    question: Message
    answers: list[Message]


class Alternative(BaseModel):
    """A token that the model might have said instead."""

    id: int
    text: str
    logprob: float


class Token(BaseModel):
    """One token, with the model's own probability."""

    id: int
    text: str = Field(description="empty where it is a part of a character that a later token completes")
    logprob: float | None
    special: bool
    alternatives: list[Alternative]


class Piece(BaseModel):
    """A run of a prompt: plain text, or one control token."""

    text: str
    ids: list[int]
    control: bool


class Prompt(BaseModel):
    """Exactly what goes to the model."""

    template: str
    text: str
    ids: list[int]
    pieces: list[Piece]


class PromptMade(Prompt):
    """A prompt, and how much of the conversation is in it."""

    kept: int = Field(description="messages that are in it")
    dropped: int = Field(description="messages that the window had no room for")


class Reply(BaseModel):
    """An answer with all of its tokens, and the prompt that it answers."""

    message: Message
    tokens: list[Token]
    prompt: Prompt


class Tokens(BaseModel):
    """An answer that is not stored."""

    text: str
    tokens: list[Token]
    finish: Finish
    prompt: PromptMade


class Imported(BaseModel):
    """What an import has added."""

    conversations: list[str] = Field(description="their ids now, in the order of the file")
    messages: int


class PhaseEvent(BaseModel):
    """`event: phase`: what happens before the first token."""

    name: Literal["queued", "loading", "reading"]
    done: int = Field(description="place in the queue, percent loaded, or tokens read")
    total: int
    seconds: float


class EndEvent(BaseModel):
    """`event: end`: the last event of every answer."""

    reason: str = Field(description="as in the facts of an answer")
    failure: str
    finish: Finish | None = Field(description="counts, timings and seed; null where the writer could not tell them")


Json = dict[str, Any]
