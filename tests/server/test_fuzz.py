"""Requests made from the OpenAPI document: no 5xx, and no answer that the document does not have."""

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.responses import JSONResponse

from tests.server.fuzzing import fuzz, small_app

NUM_CASES = int(os.environ.get("FUZZ_CASES", "2000"))


@pytest.mark.slow
@pytest.mark.timeout(max(300, NUM_CASES))
def test_no_request_makes_a_server_error_or_an_answer_outside_its_schema(tmp_path: Path) -> None:
    with small_app(tmp_path) as (app, services):
        report = fuzz(app, services, num_cases=NUM_CASES)
    assert report.num_failures == 0, str(report)
    for operation in ("POST /v1/chat/completions", "PATCH /v1/adapters/{name}"):
        assert report.statuses[operation][200] > NUM_CASES // 400, str(report)  # not only refusals


BROKEN = {
    "a server error": JSONResponse({"error": {}}, 500),
    "a status that the document does not have": JSONResponse({}, 418),
    "an answer outside its schema": JSONResponse({"status": "fine"}),
    "an answer of another type": JSONResponse({"status": "ok"}, media_type="text/plain"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(BROKEN))
def test_what_the_fuzzing_is_there_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    async def broken(**_: Any) -> JSONResponse:
        return BROKEN[kind]

    with small_app(tmp_path) as (app, services):
        health = next(route for route in iter_route_contexts(app.routes) if route.path == "/health")
        monkeypatch.setattr(health.dependant, "call", broken)
        report = fuzz(app, services, num_cases=2, only="GET /health")
    assert report.num_failures == report.num_cases, str(report)
