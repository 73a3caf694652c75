"""GET / and /page/…: the playground's files, to whoever asks. Knows no data: the page asks the API, with a key."""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from server.page.files import INDEX, PageFile

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # nothing but DOMPurify's output becomes HTML
        "trusted-types dompurify",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # kept, and asked about with its ETag: a new version is seen at once
    "vary": "accept-encoding",
}


def make_router(files: Mapping[str, PageFile]) -> APIRouter:
    """Routes for these files and no others; a name is looked up as it is, and never becomes a path."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def get_page(request: Request) -> Response:
        """The page itself. It names its files relative to itself, so that it works below any prefix of a proxy."""
        return _sent(files[INDEX], request)

    @router.get("/page/{file:path}", include_in_schema=False)
    async def get_page_file(file: str, request: Request) -> Response:
        """A style sheet, a script or a picture of the page."""
        if file == INDEX or file not in files:
            raise HTTPException(404)
        return _sent(files[file], request)

    return router


def _sent(file: PageFile, request: Request) -> Response:
    headers = HEADERS | {"etag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if not _takes_gzip(request.headers.get("accept-encoding", "")):
        return Response(file.content, media_type=file.media_type, headers=headers)
    return Response(file.gzipped, media_type=file.media_type, headers=headers | {"content-encoding": "gzip"})


def _takes_gzip(accept_encoding: str) -> bool:
    for item in accept_encoding.lower().split(","):
        name, _, quality = item.strip().partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
