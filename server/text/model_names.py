"""ModelResolver: what the `model` field of a request stands for. Knows no HTTP and no engine."""

from adapters.errors import AdapterNameInvalid, AdapterNotFound
from adapters.records import NameRecord
from adapters.registry import AdapterRegistry
from adapters.weights import Adapter


class ModelResolver:
    """Reads `model` as the base's name, an adapter's name or alias, `name@digest-prefix`, or `base:name`.

    A name that is unknown or not even legal raises AdapterNotFound: the base never answers in an adapter's place.
    """

    def __init__(self, registry: AdapterRegistry) -> None:
        self._registry = registry

    @property
    def base_name(self) -> str:
        return self._registry.base.name

    def load(self, model: str, *, asker: str | None = None) -> Adapter | None:
        """The adapter that `model` stands for now, to an asker if one is named; None for the base model alone.

        It is in memory then.
        Reads the disk. Raises AdapterNotFound, AdapterIncompatible, StoreFailure.
        """
        if model == self.base_name:
            return None
        try:
            return self._registry.get(self._reference(model), asker=asker)
        except AdapterNameInvalid:
            raise self.not_found(model) from None

    def find(self, model: str) -> tuple[NameRecord, str] | None:
        """The record of the adapter that `model` stands for, and the digest it means; None for the base model.

        Reads the disk. Raises AdapterNotFound, StoreFailure.
        """
        if model == self.base_name:
            return None
        try:
            return self._registry.store.lookup(self._reference(model))
        except AdapterNameInvalid:
            raise self.not_found(model) from None

    def name_of(self, model: str) -> str:
        """The name that `model` is built on, as it is written: of the base, an adapter or an alias, known or not."""
        return self._reference(model).partition("@")[0]

    def not_found(self, model: str) -> AdapterNotFound:
        """How a model that does not exist is refused."""
        return AdapterNotFound(f"the model {model[:128]!r} does not exist (GET /v1/models lists what is served)")

    def _reference(self, model: str) -> str:
        return model.removeprefix(f"{self.base_name}:")
