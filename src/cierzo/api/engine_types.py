"""What the routes of the engine take and give: for validation and for ``/openapi.json``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

LONGEST = 1_000


class Limits(BaseModel):
    """The most that is taken."""

    text: int = Field(description="characters of a message; the request around it is bounded too")
    title: int = Field(description="characters of a title")
    stops: int = Field(description="stop texts")
    stop_length: int = Field(description="characters of one of them")
    alternatives: int = Field(description="alternatives that a token reports")
    request: int = Field(description="bytes of a request")
    file: int = Field(description="bytes of a file of conversations")


class Changing(BaseModel):
    """What will answer in a moment, if it can."""

    to: str = Field(description="a model's name, or an engine's address")
    percent: int | None = Field(description="how much of the model is loaded; null where that is not known")


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
    chosen: str | None = Field(
        description="the model by the name with which it was chosen; null where the engine chose it itself"
    )
    address: str = Field(description="the engine's address, as `--engine` takes it; empty where it is fixed")
    addresses: list[str] = Field(description="engines that may be chosen")
    changing: Changing | None = Field(description="what is being changed to; null where nothing is")


class Change(BaseModel):
    """What shall answer: a model, an engine, or both."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST,
        description="a name of `/api/models`; with an engine that is a server, a model's name there",
    )
    engine: str | None = Field(
        None, max_length=LONGEST, description="one of `addresses`; left out, it is the built-in one, `llamacpp:`"
    )
