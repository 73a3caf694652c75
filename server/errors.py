"""What the API itself refuses, before the engine or the store is asked. Knows no status (`server.error_table` does)."""

from starlette.exceptions import HTTPException

RETRY_AFTER_SECONDS = 1


class RequestRefused(Exception):
    """A request that the API itself refuses, before it reaches the engine or the store."""


class ApiKeyInvalid(RequestRefused):
    """No key, or one that this server does not know."""


class AdminKeyRequired(RequestRefused):
    """A good key for chat, used where adapters are changed."""


class RateLimited(RequestRefused):
    """A key has used up what it may ask in a minute; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = RETRY_AFTER_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestsLimited(RateLimited):
    """No more requests for now."""


class TokensLimited(RateLimited):
    """No more tokens for now."""


class BodyRefused(HTTPException):
    """A body that is not what a JSON body may be; `param` is the path of the field, if it is one field's fault.

    FastAPI turns what is raised while it reads a body into a 400, unless it is an HTTPException: so it is one.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(400, message)
        self.param = param


class UploadInvalid(RequestRefused):
    """The parts of an upload are not what they should be."""


class JobNotFound(RequestRefused):
    """No job has that id, or none that is remembered."""


class JobsBusy(RequestRefused):
    """As many adapters are being fetched as may be at once."""


class BaseModelKept(RequestRefused):
    """The base model is not an adapter: it can be neither removed nor changed."""
