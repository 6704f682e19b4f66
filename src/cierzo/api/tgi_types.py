"""The requests and answers of Text Generation Inference, for validation and for ``/openapi.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

STOPS, TOPS = 4, 5
"""Most of each in one request."""


class Body(BaseModel):
    """A request. As in TGI, what is not known is ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Grammar(Body):
    """What the answer is kept to. Of the type ``json_schema`` the value may be ``{"name", "schema"}``."""

    type: Literal["json", "json_object", "json_schema", "regex"] = Field(description="regex is not supported")
    value: str | dict[str, Any] = Field(description="JSON Schema, as an object or as its text; see docs/api.md")


class Parameters(Body):
    """How to write. What the engine cannot do is refused, never left out silently."""

    best_of: int | None = Field(None, description="1: one answer is written for one request")
    temperature: float | None = Field(None, description="over 0; given, it turns sampling on")
    repetition_penalty: float | None = Field(None, description="over 0; 1 is none")
    frequency_penalty: float | None = Field(None, description="0: use repetition_penalty")
    top_k: int | None = Field(None, description="over 0; given, it turns sampling on")
    top_p: float | None = Field(None, description="between 0 and 1, neither of them; given, it turns sampling on")
    typical_p: float | None = Field(None, description="not supported")
    do_sample: bool = False
    max_new_tokens: int | None = Field(None, description="left out: as many as the window holds")
    return_full_text: bool | None = None
    stop: Annotated[list[str], Field(description=f"at most {STOPS}")] | None = None
    truncate: int | None = Field(None, description="keep only so many tokens of the prompt, the last ones")
    watermark: bool = Field(default=False, description="not supported")
    details: bool = False
    decoder_input_details: bool = Field(
        default=False, description="the prompt's tokens; their logprobs are null, since the engine reports none"
    )
    seed: int | None = Field(None, ge=0, lt=2**64, description="taken modulo 2**32 - 1")
    top_n_tokens: int | None = Field(None, description=f"at most {TOPS}")
    grammar: Grammar | None = Field(None, description="JSON Schema that the answer is kept to")
    adapter_id: str | None = Field(None, description="not supported")


class GenerateRequest(Body):
    """`POST /generate`, `/generate_stream`, `/tokenize`. Without ``parameters`` the answer is sampled."""

    inputs: str
    parameters: Parameters | None = None


class CompatRequest(GenerateRequest):
    """`POST /`."""

    stream: bool = False


class PrefillToken(BaseModel):
    """A token of the prompt."""

    id: int
    text: str
    logprob: float | None


class TgiToken(PrefillToken):
    """A token of the answer."""

    special: bool


Reason = Literal["length", "eos_token", "stop_sequence"]


class Details(BaseModel):
    """How the answer came about."""

    finish_reason: Reason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[TgiToken]
    top_tokens: list[list[TgiToken]] | None = None


class Generated(BaseModel):
    """A whole answer."""

    generated_text: str
    details: Details | None = None


class StreamDetails(BaseModel):
    """How the answer came about, at the end of a stream."""

    finish_reason: Reason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamEvent(BaseModel):
    """One event of a stream. The last one has the text; there is no ``[DONE]``."""

    index: int
    token: TgiToken
    top_tokens: list[TgiToken] | None = None
    generated_text: str | None
    details: StreamDetails | None


class SimpleToken(BaseModel):
    """A token of a prompt, and where its text stands in the prompt as the model reads it."""

    id: int
    text: str
    start: int
    stop: int


class Info(BaseModel):
    """What is served, and its limits."""

    model_id: str
    model_sha: str | None
    model_pipeline_tag: str
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    sha: str | None
    docker_label: str | None


class TgiError(BaseModel):
    """An error, as a whole answer or as the last event of a stream."""

    error: str
    error_type: str
