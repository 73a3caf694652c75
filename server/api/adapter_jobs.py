"""/v1/adapters/jobs: adapters that the server fetches in the background. Fetches and publishes nothing itself."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from adapters.naming import NAME_PATTERN, NAME_RULE
from server.api.deps import ADMIN, Parts, PartsDep
from server.api.guarded_route import GuardedRoute
from server.api.new_names import check_new_name
from server.errors import BodyRefused
from server.jobs import Job, Publish
from server.protocol.adapter_jobs import MAX_SOURCE_CHARS, AdapterJob, AdapterJobList, AdapterSource

router = APIRouter(route_class=GuardedRoute)

SOURCE_CONTENT: dict[str, Any] = {
    "schema": {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "source"],
        "properties": {
            "name": {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$", "description": NAME_RULE},
            "source": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_SOURCE_CHARS,
                "description": "A directory below one of --adapter-roots, or hf://org/repo@revision, s3://bucket/path, "
                "gs://bucket/path or az://container/path below one of --adapter-sources",
            },
        },
    },
    "examples": {
        "a directory of the server": {"value": {"name": "support", "source": "/srv/adapters/support"}},
        "a repository of the hub": {"value": {"name": "support", "source": "hf://team/support@v2"}},
        "a bucket": {"value": {"name": "support", "source": "s3://team-adapters/support"}},
    },
}
"""A body of `AdapterSource`, as the OpenAPI document has it."""


@router.get("/v1/adapters/jobs", dependencies=ADMIN)
async def list_jobs(parts: PartsDep) -> AdapterJobList:
    """Every adapter that is being fetched, and the last hundred that were, oldest first."""
    return AdapterJobList(data=[_record(job) for job in parts.jobs.all()])


@router.get("/v1/adapters/jobs/{job}", dependencies=ADMIN)
async def get_job(job: str, parts: PartsDep) -> AdapterJob:
    """One adapter on its way: how far it has come, or why it was refused."""
    return _record(parts.jobs.get(job))


@router.delete("/v1/adapters/jobs/{job}", dependencies=ADMIN)
async def cancel_job(job: str, parts: PartsDep) -> AdapterJob:
    """End a job, and answer when it has ended; one that has ended already stays as it is."""
    return _record(await parts.jobs.cancel(job))


async def start_job(request: Request, parts: Parts, publish: Publish) -> Response:
    """Begin to fetch the adapter that a JSON body names; 202 with the job.

    Raises RequestValidationError, BodyRefused, SourceRefused, JobsBusy; and whatever a name is refused with.
    """
    body = await _read(request)
    check_new_name(body.name, parts.resolver.base_name)
    record = _record(parts.jobs.start(body.name, body.source, publish))
    return JSONResponse(record.model_dump(), 202, {"location": f"/v1/adapters/jobs/{record.id}"})


async def _read(request: Request) -> AdapterSource:
    content = json.loads(await request.body() or b"null")  # it has been checked on its way in
    if not isinstance(content, dict):
        raise BodyRefused("the body must be a JSON object, sent with content-type: application/json")
    try:
        return AdapterSource.model_validate(content)
    except ValidationError as error:
        problems = [problem | {"loc": ("body", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RequestValidationError(problems, body=content) from None


def _record(job: Job) -> AdapterJob:
    return AdapterJob(
        id=job.id,
        name=job.name,
        source=job.source,
        resolved=job.resolved,
        state=job.state,
        bytes_fetched=job.progress.fetched_bytes,
        bytes_total=job.progress.total_bytes,
        created=job.created,
        ended=job.ended,
        digest=job.digest,
        error=job.error,
    )
