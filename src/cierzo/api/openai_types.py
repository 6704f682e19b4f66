"""The requests and answers of the OpenAI routes, for validation and for ``/openapi.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cierzo.messages import MAX_ALTERNATIVES, MAX_STOP_LENGTH, MAX_STOPS

Nothing = Annotated[float, Field(ge=0, le=0)]
Empty = Annotated[list[Any], Field(max_length=0)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
SEED = 2**63


class Body(BaseModel):
    """A request. Values have the type that they should have; what is not known is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class TextPart(Body):
    """A part of a message. Only text can be read."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One turn. Without tools there is nothing but text in it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=1000)] | None = None
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Empty | None = None


class StreamOptions(Body):
    """What a stream says beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class NamedSchema(BaseModel):
    """A JSON Schema that the answer is kept to. The name is for people."""

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    name: str = Field("", max_length=64)
    description: str | None = Field(None, description="ignored: say it in a message")
    schema_: dict[str, Any] = Field(alias="schema", description="JSON Schema; docs/api.md says what may be in it")
    strict: bool | None = Field(None, description="ignored: the answer is always kept to the schema")


class ResponseFormat(Body):
    """The form of the answer: plain text, any JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(None, description="with the type json_schema")


class Common(Body):
    """What both routes take."""

    model: str = Field("", description="any name: there is one model here, and the answer says which")
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, ge=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: int | None = Field(None, ge=-SEED, lt=SEED, description="taken modulo 2**32 - 1")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_k: int | None = Field(None, ge=-1, le=200_000, description="0 or -1 is all; not in OpenAI's API")
    min_p: float | None = Field(None, ge=0, le=1, description="not in OpenAI's API")
    repetition_penalty: float | None = Field(None, ge=0.01, le=10, description="1 is none; not in OpenAI's API")
    n: Literal[1] | None = None
    frequency_penalty: Nothing | None = None
    presence_penalty: Nothing | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = Field(None, description="ignored")


class ChatRequest(Common):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=100_000)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_ALTERNATIVES)
    response_format: ResponseFormat | None = None
    tools: Empty | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Empty | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None
    parallel_tool_calls: bool | None = Field(None, description="ignored")
    metadata: dict[str, str] | None = Field(None, description="ignored")
    store: bool | None = Field(None, description="ignored: nothing is kept")
    service_tier: str | None = Field(None, description="ignored")
    safety_identifier: str | None = Field(None, description="ignored")
    prompt_cache_key: str | None = Field(None, description="ignored: the longest common beginning is found")
    prompt_cache_retention: str | None = Field(None, description="ignored")
    reasoning_effort: str | None = Field(None, description="ignored: these models do not reason apart")
    verbosity: str | None = Field(None, description="ignored")


Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Common):
    """`POST /v1/completions`."""

    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1, max_length=1)]
        | Annotated[list[Ids], Field(min_length=1, max_length=1)]
    )
    max_tokens: int | None = Field(None, ge=1)
    logprobs: int | None = Field(None, ge=0, le=MAX_ALTERNATIVES)
    return_token_ids: bool | None = Field(None, description="tell each token's id, as vLLM does")
    return_tokens_as_token_ids: bool | None = Field(
        None, description="in logprobs, name tokens `token_id:N`, as vLLM does"
    )
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None


class TopLogprob(BaseModel):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token that came."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Probabilities in the shape of the chat route."""

    content: list[TokenLogprob]
    refusal: None


class LegacyLogprobs(BaseModel):
    """Probabilities in the shape of the older route."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class PromptDetails(BaseModel):
    """Where the prompt's tokens came from."""

    cached_tokens: int


class Usage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


FinishName = Literal["stop", "length"]


class ChatChoice(BaseModel):
    """The one choice."""

    index: Literal[0]
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishName


class Delta(BaseModel):
    """What is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(BaseModel):
    """The one choice of a chunk."""

    index: Literal[0]
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishName | None


class CompletionChoice(BaseModel):
    """The one choice."""

    index: Literal[0]
    text: str
    token_ids: list[int] | None = Field(None, description="with `return_token_ids`; 0 where the engine tells none")
    logprobs: LegacyLogprobs | None
    finish_reason: FinishName | None


class Head(BaseModel):
    """What every answer and chunk begins with."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatAnswer(Head):
    """A whole answer."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class ChatChunk(Head):
    """One event of a stream; the last one is the text ``[DONE]``."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class CompletionAnswer(Head):
    """A whole answer, or one event of a stream."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The models."""

    object: Literal["list"]
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error, as a whole answer or as the last event of a stream."""

    error: ErrorDetail
