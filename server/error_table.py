"""The one table from exception to HTTP status and OpenAI error type, code and field. Knows no request and no route."""

import errno
from dataclasses import dataclass

from adapters.errors import (
    AdapterDamaged,
    AdapterIncompatible,
    AdapterInUse,
    AdapterInvalid,
    AdapterMismatch,
    AdapterNameInvalid,
    AdapterNotFound,
    AdapterTooLarge,
    AdapterUnsupported,
    CanaryInvalid,
    ChatFormatError,
    ChatTemplateBusy,
    ChatTemplateOverrun,
    StoreFailure,
    StoreReadOnly,
)
from server.engine.errors import (
    EngineDead,
    EngineDown,
    EngineOverloaded,
    EngineStopping,
    InjectionUnfit,
    LogitBiasInvalid,
    PromptInvalid,
    PromptTooLong,
    ReaderStalled,
    SequenceFailed,
)
from server.errors import (
    AdminKeyRequired,
    ApiKeyInvalid,
    BaseModelKept,
    JobNotFound,
    JobsBusy,
    RateLimited,
    TokensLimited,
    UploadInvalid,
)
from server.sources.errors import SourceRefused, SourceUnavailable
from server.text.errors import FieldRefused
from server.text.structure.errors import StructureBusy, StructureFailed, StructureUnsupported


@dataclass(frozen=True, slots=True)
class Wording:
    """How an exception is told to a client. Without a fixed message, the exception's own text is told."""

    status: int
    type: str
    code: str
    message: str | None = None
    param: str | None = None
    retry: bool = False


INVALID = "invalid_request_error"
PROMPT = "messages"
"""Stands for what a request calls its prompt."""
_SERVER = "server_error"
_UNEXPECTED = Wording(500, _SERVER, "internal_error", "The server failed on this request; its log says why.")

# The first entry that the exception is an instance of counts: special ones stand before general ones.
_TABLE: tuple[tuple[type[Exception], Wording], ...] = (
    (ApiKeyInvalid, Wording(401, "authentication_error", "invalid_api_key")),
    (AdminKeyRequired, Wording(403, "permission_error", "admin_key_required")),
    (TokensLimited, Wording(429, "tokens", "rate_limit_exceeded")),
    (RateLimited, Wording(429, "requests", "rate_limit_exceeded")),
    (UploadInvalid, Wording(400, INVALID, "upload_invalid")),
    (JobNotFound, Wording(404, INVALID, "job_not_found", param="job")),
    (JobsBusy, Wording(503, _SERVER, "jobs_busy", retry=True)),
    (SourceRefused, Wording(400, INVALID, "source_refused", param="source")),
    (SourceUnavailable, Wording(400, INVALID, "source_unavailable", param="source")),
    (BaseModelKept, Wording(400, INVALID, "base_model_kept", param="model")),
    (AdapterNotFound, Wording(404, INVALID, "model_not_found", param="model")),
    (AdapterNameInvalid, Wording(400, INVALID, "adapter_name_invalid", param="name")),
    (AdapterTooLarge, Wording(413, INVALID, "adapter_too_large")),
    (AdapterUnsupported, Wording(400, INVALID, "adapter_unsupported")),
    (AdapterMismatch, Wording(400, INVALID, "adapter_mismatch")),
    (AdapterInvalid, Wording(400, INVALID, "adapter_invalid")),
    (AdapterIncompatible, Wording(400, INVALID, "adapter_incompatible")),
    (CanaryInvalid, Wording(400, INVALID, "invalid_value", param="canary")),
    (AdapterInUse, Wording(409, INVALID, "adapter_in_use", param="name")),
    (StoreReadOnly, Wording(403, "permission_error", "store_read_only")),
    (
        AdapterDamaged,
        Wording(
            500,
            _SERVER,
            "adapter_damaged",
            "This adapter's files in the store are damaged; publish it again, or roll back.",
        ),
    ),
    (StoreFailure, Wording(500, _SERVER, "store_failure")),
    (
        ChatTemplateBusy,
        Wording(503, _SERVER, "chat_template_busy", "Other chat templates are being rendered; try again.", retry=True),
    ),
    (ChatTemplateOverrun, Wording(400, INVALID, "chat_template_stopped", param="model")),
    (ChatFormatError, Wording(400, INVALID, "messages_refused", param=PROMPT)),
    (FieldRefused, Wording(400, INVALID, "invalid_value")),
    (StructureUnsupported, Wording(400, INVALID, "structure_unsupported")),
    (StructureFailed, Wording(400, INVALID, "structure_failed")),
    (StructureBusy, Wording(503, _SERVER, "grammar_compiler_busy", retry=True)),
    (LogitBiasInvalid, Wording(400, INVALID, "invalid_value", param="logit_bias")),
    (PromptInvalid, Wording(400, INVALID, "prompt_invalid", param=PROMPT)),
    (PromptTooLong, Wording(400, INVALID, "context_length_exceeded", param=PROMPT)),
    (InjectionUnfit, Wording(400, INVALID, "adapter_incompatible", param="model")),
    (EngineOverloaded, Wording(503, _SERVER, "engine_overloaded", "The queue is full; try again.", retry=True)),
    (EngineStopping, Wording(503, _SERVER, "server_stopping", "The server is stopping; try again.", retry=True)),
    (SequenceFailed, Wording(500, _SERVER, "sequence_failed", "This request could not be computed.")),
    (ReaderStalled, Wording(408, INVALID, "reader_stalled", "The answer was not read for too long, and has ended.")),
    (EngineDead, Wording(500, _SERVER, "engine_dead", "The engine failed while it computed this request; try again.")),
    (
        EngineDown,
        Wording(503, _SERVER, "engine_down", "The engine has failed and is not up again; try later.", retry=True),
    ),
)
_STORE_FULL = Wording(507, _SERVER, "store_full", "The disk of the adapter store is full.")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def wording_of(error: Exception) -> Wording:
    """The table's entry for an exception; an unknown one is an internal error with a fixed text."""
    if isinstance(error, StoreFailure) and isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
        return _STORE_FULL
    return next((wording for kind, wording in _TABLE if isinstance(error, kind)), _UNEXPECTED)
