"""Asking for a stream, on the wire: the fields that chat and plain completions share. Knows no route."""

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from server.protocol.base import RequestBody


class StreamOptions(RequestBody):
    include_usage: bool = False


class StreamFields(RequestBody):
    """null stands for a field that is left out."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stream_options")
    @classmethod
    def _only_for_streams(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise PydanticCustomError("stream_options", "is allowed only with stream: true")
        return options

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage
