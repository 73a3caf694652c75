"""GET and DELETE /v1/models: the base model and each adapter are models, as OpenAI clients see them."""

from contextlib import suppress
from dataclasses import dataclass

from fastapi import APIRouter, Response

from adapters.errors import AdapterError, AdapterNotFound
from adapters.records import NameRecord
from server.api.bodies import list_response
from server.api.deps import CHANGE, CHAT, CallerDep, Parts, PartsDep
from server.api.guarded_route import GuardedRoute
from server.api.pins import pins_settled
from server.errors import BaseModelKept
from server.protocol.models import DeletedModel, ModelCard, ModelList

router = APIRouter(route_class=GuardedRoute)


@router.get("/v1/models", dependencies=CHAT, response_model=ModelList)
def list_models(parts: PartsDep, caller: CallerDep) -> Response:
    """Everything that `model` may say in this key's requests: the base, adapters and aliases.

    The body is made here, in a worker thread: there may be thousands of cards.
    """
    cards = [_base_card(parts)] if caller.may_use(parts.resolver.base_name) else []
    for record in parts.registry.store.records():
        if not caller.may_use(record.name):
            continue
        if isinstance(record, NameRecord):
            cards.append(_adapter_card(parts, record.name, record, record.current))
        else:
            with suppress(AdapterNotFound):  # its target was removed meanwhile
                cards.append(_adapter_card(parts, record.name, *parts.registry.store.lookup(record.name)))
    return list_response(cards)


@router.get("/v1/models/{model:path}", dependencies=CHAT)
def get_model(model: str, parts: PartsDep) -> ModelCard:
    """One model, by any name that a request may call it."""
    found = parts.resolver.find(model)
    return _base_card(parts) if found is None else _adapter_card(parts, model, *found)


@router.delete("/v1/models/{model:path}", dependencies=CHANGE)
def delete_model(model: str, parts: PartsDep) -> DeletedModel:
    """Remove an adapter or an alias; running requests finish with what they began with."""
    removed = remove_adapter(parts, model)
    return DeletedModel(id=model, running=removed.running, was_pinned=removed.was_pinned)


@dataclass(frozen=True, slots=True)
class Removed:
    """What a name that was removed was doing."""

    running: int
    was_pinned: bool


def remove_adapter(parts: Parts, name: str) -> Removed:
    """Remove a name from store and memory. Raises BaseModelKept, AdapterNotFound, AdapterInUse."""
    if name == parts.resolver.base_name:
        raise BaseModelKept(f"{name} is the base model, which cannot be removed")
    was_pinned = _is_pinned(parts, name)
    with pins_settled(parts):
        parts.registry.remove(name)
    parts.use.forget(name)
    return Removed(running=parts.use.running(name).total(), was_pinned=was_pinned)


def _is_pinned(parts: Parts, name: str) -> bool:
    """Whether a name itself is pinned: an alias never is, and of a damaged record it cannot be told."""
    with suppress(AdapterError):
        record = parts.registry.store.record(name)
        return record.name == name and record.pinned
    return False


def _base_card(parts: Parts) -> ModelCard:
    name = parts.resolver.base_name
    return ModelCard(id=name, created=parts.started, root=name, parent=None)


def _adapter_card(parts: Parts, model: str, record: NameRecord, digest: str) -> ModelCard:
    created = next(version.created for version in record.versions if version.digest == digest)
    return ModelCard(id=model, created=created, root=digest, parent=parts.resolver.base_name)
