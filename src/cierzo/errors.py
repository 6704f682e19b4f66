"""Every error Cierzo raises on purpose, one class for each decision that a caller can make.

CierzoError                 something went wrong; the sentence says what and what to do
├── BadInput                the request is wrong; change it                       (400, exit 2)
│   ├── BadSampling         a sampling value is not a number or out of its range
│   ├── BadText             a message is empty, too long, or not Unicode text
│   ├── PromptTooLong       the last question alone does not fit the window       (413)
│   └── BadSetting          a flag, CIERZO_* variable or cierzo.toml entry is wrong
├── ModelError              this model cannot be used; pick another or repair it
│   ├── UnknownModel        no model of that name                                 (404, exit 2)
│   ├── ModelUnreadable     the file is missing, damaged, or not a GGUF           (422)
│   ├── NotEnoughMemory     the model needs more memory than is free              (507)
│   └── DownloadFailed      the hub did not give the file                         (502)
│       ├── ModelGated      its owner wants an agreement, and a token, first      (403)
│       └── DiskFull        there is no room for it                               (507)
├── EngineError             the engine failed; the same request may work again    (502)
│   ├── EngineDied          its process ended or hung while it was answering
│   ├── EngineRefused       it answered the request with an error of its own
│   └── EngineMissing       the engine's library cannot be loaded on this machine (503)
├── NotFound                no conversation, message or answer of that id is yours (404, exit 2)
├── Conflict                the id stands for something else, or somebody was faster (409)
├── Overloaded              every place in the queue is taken; try later          (429)
├── StoreUnavailable        the database does not answer now; try later           (503)
├── StoreUnusable           the database is damaged, foreign or newer than this program (500)
├── HomeNotWritable         CIERZO_HOME cannot be written                         (500)
└── PageNotDrawn            Gradio cannot draw the page                           (500)

What comes from outside (httpx, llama.cpp, huggingface_hub, SQLAlchemy, the system) is translated into one of these
where it enters; no face ever sees another class.
"""

from __future__ import annotations


class CierzoError(Exception):
    """Base of all. ``str(error)`` is one line for a person: what happened, then what to do."""

    status: int = 500
    """HTTP status with which an API answers it."""

    exit_code: int = 1
    """Exit status of the command line."""


class BadInput(CierzoError):
    """The request is wrong and will stay wrong until it is changed."""

    status = 400
    exit_code = 2


class BadSampling(BadInput):
    """A sampling value is not a number, or lies outside its range."""


class BadText(BadInput):
    """A message is empty, too long, or holds characters that are not Unicode text."""


class PromptTooLong(BadInput):
    """The last question alone is longer than the model's window.

    Args:
        needed: Tokens that the shortest possible prompt takes.
        available: Tokens that the window leaves for a prompt.
        at_least: Whether ``needed`` is only the least that a text so long can take; it was not worth counting.
    """

    status = 413

    def __init__(self, needed: int, available: int, *, at_least: bool = False) -> None:
        least = "at least " if at_least else ""
        super().__init__(
            f"the last question takes {least}{needed} tokens and the model's window has room for {available}: "
            "shorten the question or the system prompt, or lower max_new_tokens"
        )
        self.needed = needed
        self.available = available


class BadSetting(BadInput):
    """A flag, an environment variable or an entry of cierzo.toml has a value that cannot be used."""


class ModelError(CierzoError):
    """The model cannot be used."""


class UnknownModel(ModelError):
    """No model has this name, and no file this path."""

    status = 404
    exit_code = 2


class ModelUnreadable(ModelError):
    """The model file is missing, damaged, or something else than a GGUF that llama.cpp can load."""

    status = 422


class NotEnoughMemory(ModelError):
    """The model needs more memory than this machine has free."""

    status = 507


class DownloadFailed(ModelError):
    """A model file could not be fetched from the hub."""

    status = 502


class ModelGated(DownloadFailed):
    """The hub gives the file only to accounts that have agreed to its owner's conditions."""

    status = 403


class DiskFull(DownloadFailed):
    """The disk has no room for the file."""

    status = 507


class EngineError(CierzoError):
    """The engine failed while it answered. The request was good; asking again may work."""

    status = 502


class EngineDied(EngineError):
    """The engine's process ended, or stopped responding, while it was answering."""


class EngineRefused(EngineError):
    """The engine answered with an error of its own."""


class EngineMissing(EngineError):
    """The engine cannot run on this machine: a library that it needs is missing."""

    status = 503


class Overloaded(CierzoError):
    """Every waiting place is taken.

    Args:
        retry_after: Seconds after which it is worth asking again.
    """

    status = 429

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(CierzoError):
    """Nothing of that id exists, or it belongs to somebody else: the two look the same from outside."""

    status = 404
    exit_code = 2


class Conflict(CierzoError):
    """The same id was used for something else, or the thing has changed since it was read: read it again."""

    status = 409


class StoreUnavailable(CierzoError):
    """The database does not answer at the moment. What was acknowledged before is safe.

    Args:
        retry_after: Seconds after which it is worth asking again.
    """

    status = 503

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnusable(CierzoError):
    """The database is damaged, is something else than Cierzo's, or was written by a newer Cierzo."""


class HomeNotWritable(CierzoError):
    """The folder for conversations and settings cannot be written."""


class PageNotDrawn(CierzoError):
    """Gradio, which draws the page, does not run on this machine."""
