"""Refuses what does not have a model's shapes, and looks at each weight delta once. Knows no batches."""

from collections.abc import Mapping
from weakref import WeakValueDictionary

from adapters.fitting import LayerShape, LinearShape, delta_problem, kv_problem
from adapters.injections import KVRows, WeightDelta
from server.engine.errors import InjectionUnfit


def require_kv_fit(rows: KVRows, layers: Mapping[int, LayerShape]) -> None:
    """Raise InjectionUnfit unless KV rows are what each of these layers stores."""
    if (problem := kv_problem(rows, layers)) is not None:
        raise InjectionUnfit(problem)


def require_delta_fit(delta: WeightDelta, shapes: Mapping[str, LinearShape]) -> None:
    """Raise InjectionUnfit unless a weight delta changes linear modules of these shapes alone."""
    if (problem := delta_problem(delta, shapes)) is not None:
        raise InjectionUnfit(problem)


class FittingDeltas:
    """Looks at each weight delta once, so that requests do not pay for it; it holds none of them."""

    def __init__(self, shapes: Mapping[str, LinearShape]) -> None:
        self._shapes = shapes
        self._known: WeakValueDictionary[int, WeightDelta] = WeakValueDictionary()  # by identity

    def require_fit(self, delta: WeightDelta) -> None:
        """See `require_delta_fit`; any thread may ask."""
        if self._known.get(id(delta)) is not delta:
            require_delta_fit(delta, self._shapes)
            self._known[id(delta)] = delta
