"""One log record for each request. Knows no form of a line."""

import logging

from server.telemetry.log_lines import Fields
from server.telemetry.observed import Observed
from server.text.request_notes import Outcome, RequestNotes

QUIET_ROUTES = frozenset({"/health", "/ready", "/metrics"})
"""Asked by machines, all the time: their good answers are told at debug only."""

logger = logging.getLogger("server.requests")


def log_request(observed: Observed) -> None:
    """Tell what was asked and how it went; at warning where it was our own fault."""
    level = _level(observed)
    if logger.isEnabledFor(level):
        where = observed.route or "(no route)"
        logger.log(level, "%s %s %d", observed.method, where, observed.status, extra={"fields": fields_of(observed)})


def fields_of(observed: Observed) -> Fields:
    """What a record of a request has beside its message."""
    notes, caller = observed.notes, observed.caller
    fields: Fields = {
        "request_id": observed.request_id,
        "method": observed.method,
        "route": observed.route,
        "path": None if observed.route is not None else observed.path,
        "status": observed.status,
        "duration_s": round(observed.seconds, 6),
        "key": None if observed.key_id is None or caller is None else caller.name,
        "key_id": observed.key_id,
    }
    return fields if notes.model is None else {**fields, **_of_answer(notes)}


def _of_answer(notes: RequestNotes) -> Fields:
    return {
        "model": notes.model,
        "adapter": None if notes.adapter is None else notes.adapter.name,
        "adapter_digest": None if notes.adapter is None else notes.adapter.digest_prefix,
        "prompt_tokens": notes.num_prompt_tokens,
        "cached_tokens": notes.num_cached_tokens,
        "completion_tokens": notes.num_generated_tokens,
        "queue_s": _between(notes.asked_at, notes.admitted_at),
        "ttft_s": _between(notes.arrived_at, notes.first_token_at),
        "finish_reason": ",".join(sorted(set(notes.finish_reasons))) or None,
        "outcome": None if notes.outcome is None else notes.outcome.value,
        "error": notes.error,
        "prompts": list(notes.prompts) if notes.keeps_prompts else None,
    }


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(end - start, 0.0), 6)


def _level(observed: Observed) -> int:
    is_refused_for_now = observed.status == 503
    has_failed_in_stream = observed.notes.outcome is Outcome.FAILED and observed.status == 200
    if (observed.status >= 500 and not is_refused_for_now) or has_failed_in_stream:
        return logging.WARNING
    return logging.DEBUG if observed.route in QUIET_ROUTES and observed.status < 400 else logging.INFO
