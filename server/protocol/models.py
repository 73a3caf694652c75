"""Models on the wire, as OpenAI clients see them. Knows no route."""

from typing import Literal

from server.protocol.base import ResponseBody


class ModelCard(ResponseBody):
    """`parent` is the base model that an adapter belongs to, `root` the adapter's digest (the base's own name)."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "hotprompt"
    root: str
    parent: str | None


class ModelList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class DeletedModel(ResponseBody):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
    running: int
    """Requests that still run, and finish on the version they began with."""
    was_pinned: bool
