"""What the engine refuses or fails at. Knows no HTTP: status codes are chosen in `server.error_table`.

EngineError
├── CacheTooSmall      the KV cache cannot hold one sequence of the longest length
├── PromptInvalid      the prompt is empty, or has ids that the model does not know
│   └── LogitBiasInvalid    logit_bias has ids that the model does not know
├── InjectionUnfit     what the adapter injects is of another shape than the model, or what computes it takes none
├── PromptTooLong      prompt, virtual tokens and answer do not fit into the model's context or the KV cache
├── EngineOverloaded   the queue is full; come back later
├── EngineStopping     the engine is draining and takes no new request
├── SequenceFailed     this one sequence could not be computed; its neighbours are unharmed
│   └── NoTokenAllowed      its constraint failed, or left no token that may come next
├── ReaderStalled      nobody has read this sequence's tokens for too long, and it was aborted
├── EngineDead         the engine's thread ended by a fault while it computed this request
├── EngineDown         the engine's thread is not running, and takes no request until it is started anew
├── ModelUnsupported   the start-up self-check found that this model cannot be served exactly
└── NativeUnavailable  this model or machine has no native decoder; transformers' own model computes, if it may
"""

from typing import Self


class EngineError(Exception):
    """Anything that the engine refuses or fails at."""


class CacheTooSmall(EngineError):
    """The KV cache cannot hold one sequence of the longest length."""


class PromptInvalid(EngineError):
    """The prompt is empty, or has ids that the model does not know."""


class LogitBiasInvalid(PromptInvalid):
    """logit_bias has ids that the model does not know."""


class InjectionUnfit(EngineError):
    """What an adapter injects is of another shape than the model, or what computes the model takes none of its kind."""


class PromptTooLong(EngineError):
    """Prompt, virtual tokens and answer do not fit into the model's context or the KV cache."""


class EngineOverloaded(EngineError):
    """The queue is full."""

    @classmethod
    def with_places_taken(cls, num_places: int) -> Self:
        """The error when so many requests, which are all that there may be, are there."""
        return cls(f"{num_places} requests are running or waiting already; try again later")


class EngineStopping(EngineError):
    """The engine is draining and takes no new request."""


class SequenceFailed(EngineError):
    """This one sequence could not be computed; its neighbours are unharmed."""


class NoTokenAllowed(SequenceFailed):
    """Its constraint failed, or it and the other settings left no token that may come next."""


class ReaderStalled(EngineError):
    """More tokens wait to be read than may, and their sequence was aborted."""


class EngineDead(EngineError):
    """The engine's thread ended by a fault while it computed this request."""


class EngineDown(EngineError):
    """The engine's thread is not running; it takes no request until it is started anew."""


class ModelUnsupported(EngineError):
    """The start-up self-check found that this model cannot be served exactly."""


class NativeUnavailable(EngineError):
    """This model or this machine has no native decoder; the message says why."""
