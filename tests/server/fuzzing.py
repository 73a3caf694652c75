"""Thousands of requests made from the OpenAPI document, right and wrong ones, against a small real server.

`python -m tests.server.fuzzing --cases 10000` reports what came back; the slow tests run a few hundred.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.transport.serialization import Binary

from adapters.weights import read_adapter
from server.api.openapi_examples import EXAMPLES
from server.app import create_app
from server.services import Services, build_services
from tests.server.building import soft_prompt_files, tiny_settings
from tests.tiny import save_tiny_base

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
BASE, ADAPTER = "tiny-llama", "team"
OTHER_VERSION = -1
"""The seed of a version that the adapter has beside its current one, for a canary."""
ROUND = 25
"""Cases of one operation in a row; before each round the adapter is there again."""
MAX_MODEL_LEN = 256
"""Short, so that answers without a limit end soon."""
KEPT_FAILURES = 10
SHARE_OF_EXAMPLES = 0.7
SHARE_OF_FIELDS = 0.04
NOT_ADDED = {"messages", "prompt", "input", "tokens", "max_completion_tokens"}
"""An example's own prompt is kept, and there is one limit."""
UPLOAD = "POST /v1/adapters"
ANSWER_LIMITS = {
    "POST /v1/chat/completions": "max_tokens",
    "POST /v1/completions": "max_tokens",
    "POST /v1/responses": "max_output_tokens",
}

Operation = APIOperation[Any, Any, Any, Any]


@dataclass(slots=True)
class FuzzReport:
    """What came back. `failures` are the first ones, with the request that led to each."""

    num_cases: int = 0
    num_failures: int = 0
    seconds: float = 0
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    """By operation."""
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.num_cases} cases, {self.num_failures} failures, {self.seconds:.0f} s"]
        for operation, statuses in sorted(self.statuses.items()):
            told = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
            lines.append(f"{statuses.total():7} {operation}  ({told})")
        return "\n".join([*lines, *self.failures])


@contextmanager
def small_app(place: Path) -> Iterator[tuple[FastAPI, Services]]:
    """An app on a tiny base; schemathesis starts it, and it is stopped when the block is left."""
    config = tiny_settings(
        save_tiny_base("llama", place / BASE), place / "store", max_model_len=MAX_MODEL_LEN, shutdown_grace_seconds=0
    )
    services = build_services(config)
    app = create_app(services, config)
    try:
        yield app, services
    finally:
        shutdown_lifespans()


def fuzz(
    app: FastAPI, services: Services, *, num_cases: int, first_seed: int = 0, only: str | None = None
) -> FuzzReport:
    """Send at least so many cases, in rounds over all operations (or one), every second round with wrong data."""
    report = FuzzReport()
    began = time.monotonic()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations: list[Any] = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    operations = [operation for operation in operations if only in (None, operation.label)]
    round_number = first_seed
    while report.num_cases < num_cases:
        for operation in operations:
            for mode in _modes_of(operation):
                for version in (OTHER_VERSION, round_number):
                    services.registry.store.publish(ADAPTER, soft_prompt_files(version))
                if report.num_cases < num_cases:
                    _one_round(operation, mode, report, number=round_number)
        round_number += 1
    report.seconds = time.monotonic() - began
    return report


def _modes_of(operation: Operation) -> tuple[GenerationMode, ...]:
    """Wrong data too where there is a body: any text may stand in a path."""
    return (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if operation.body else (GenerationMode.POSITIVE,)


def _one_round(operation: Operation, mode: GenerationMode, report: FuzzReport, *, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=mode),
        model=st.sampled_from([None, BASE, ADAPTER]),
        random=st.randoms(use_true_random=False),
    )
    def send(case: Case[Any], model: str | None, random: Random) -> None:
        _name_a_real_model(case, model, mode)
        if mode is GenerationMode.POSITIVE and random.random() < SHARE_OF_EXAMPLES:
            _begin_with_an_example(case, random)
        _check(case, report, _checks_of(case, mode))

    send()


def _name_a_real_model(case: Case[Any], model: str | None, mode: GenerationMode) -> None:
    """Two of three requests that could name a model name one that exists: made-up names would all be 404.

    What is wrong with wrong data stays wrong: only a name that is a legal one is replaced.
    """
    if model is None:
        return
    body = case.body
    if isinstance(body, dict) and isinstance(named := body.get("model"), str) and 1 <= len(named) <= 512:
        body["model"] = model
    for parameter in ("name", "model"):
        if mode is GenerationMode.POSITIVE and parameter in case.path_parameters:
            case.path_parameters[parameter] = ADAPTER


def _begin_with_an_example(case: Case[Any], random: Random) -> None:
    """An example with a few of the case's fields, and a short answer: most requests with all fields are refused."""
    if not isinstance(case.body, dict):
        return
    label = case.operation.label
    if label == UPLOAD:
        if case.media_type == "application/json":  # a source, none of which this server reads
            return
        files = soft_prompt_files(random.randint(1, 3)).by_name()
        upload: dict[str, Any] = {"name": ADAPTER} | {name: Binary(content) for name, content in files.items()}
        case.body = upload
        return
    added = {name: value for name, value in case.body.items() if name == "model" or random.random() < SHARE_OF_FIELDS}
    for name in NOT_ADDED & added.keys():
        del added[name]
    limits = {ANSWER_LIMITS[label]: random.randint(1, 16)} if label in ANSWER_LIMITS else {}
    case.body = _with_a_real_version(random.choice(list(EXAMPLES[label].values())) | added | limits)


def _with_a_real_version(body: dict[str, Any]) -> dict[str, Any]:
    """A canary's digest that nobody has published would be a 404."""
    if not isinstance(canary := body.get("canary"), dict) or "digest" not in canary:
        return body
    digest = read_adapter(ADAPTER, soft_prompt_files(OTHER_VERSION)).manifest.digest
    return body | {"canary": canary | {"digest": digest}}


def _checks_of(case: Case[Any], mode: GenerationMode) -> list[Any]:
    """All; but schemathesis cannot see that the files of a right upload are what the document asks for."""
    is_right_upload = case.operation.label == UPLOAD and mode is GenerationMode.POSITIVE
    return [check for check in CHECKS if not (is_right_upload and check is negative_data_rejection)]


def _check(case: Case[Any], report: FuzzReport, checks: list[Any]) -> None:
    response = case.call()
    report.num_cases += 1
    report.statuses.setdefault(case.operation.label, Counter())[response.status_code] += 1
    try:
        case.validate_response(response, checks=checks)
    except FailureGroup as failure:
        report.num_failures += 1
        if len(report.failures) < KEPT_FAILURES:
            said = "; ".join(str(problem).replace("\n", " ")[:300] for problem in failure.exceptions)
            sent = f"{case.path_parameters} {case.body!r:.200}"
            report.failures.append(f"{case.operation.label} {response.status_code}: {said} | {sent}")


def main() -> int:
    """Exit code 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place, small_app(Path(place)) as (app, services):
        report = fuzz(app, services, num_cases=arguments.cases, first_seed=arguments.seed)
    sys.stdout.write(f"{report}\n")
    return 1 if report.num_failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
