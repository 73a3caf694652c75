"""Whether what an adapter injects has the shapes of a model. Knows no batches, and not how anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adapters.injections import InputScale, KVRows, LowRank, ModuleDelta, OutputScale, WeightDelta
from server.engine.errors import InjectionUnfit
from server.engine.kv_cache import LayerShape


@dataclass(frozen=True, slots=True)
class LinearShape:
    """How many values a linear module maps to how many."""

    num_inputs: int
    num_outputs: int


def linear_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear modules that compute every token of a step, by path: all but the head, which computes some."""
    head = model.get_output_embeddings()
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def linear_shapes(model: PreTrainedModel) -> dict[str, LinearShape]:
    """The shapes of `linear_modules`."""
    shapes = {}
    for path, module in linear_modules(model).items():
        if isinstance(module, nn.Linear):
            shapes[path] = LinearShape(module.in_features, module.out_features)
        else:
            assert isinstance(module, Conv1D), "there are these two kinds"
            shapes[path] = LinearShape(module.nx, module.nf)
    return shapes


def require_kv_fit(rows: KVRows, layers: Mapping[int, LayerShape]) -> None:
    """Raise InjectionUnfit unless KV rows are what each of these layers stores."""
    given = tuple(rows.keys.shape)
    if rows.values.shape != rows.keys.shape or rows.keys.ndim != 4 or rows.num_virtual_tokens == 0:
        raise InjectionUnfit(f"the adapter's keys have shape {list(given)} and its values {list(rows.values.shape)}")
    if given[0] != len(layers):
        raise InjectionUnfit(f"the adapter has keys and values for {given[0]} layers; the model has {len(layers)}")
    shape = LayerShape(given[2], given[3], given[3])
    for index, layer in layers.items():
        if layer != shape:
            raise InjectionUnfit(
                f"the adapter has {given[2]} heads of {given[3]} values; layer {index} of the model has "
                f"{layer.num_kv_heads} heads, with keys of {layer.key_dim} and values of {layer.value_dim}"
            )


def require_delta_fit(delta: WeightDelta, shapes: Mapping[str, LinearShape]) -> None:
    """Raise InjectionUnfit unless a weight delta changes linear modules of these shapes alone."""
    for path, change in delta.modules.items():
        shape = shapes.get(path)
        if shape is None:
            raise InjectionUnfit(f"the adapter changes {path}, which is no linear module that every token goes through")
        if not _is_fit(change, shape):
            sizes = " and ".join(str(list(tensor.shape)) for tensor in change.tensors)
            raise InjectionUnfit(
                f"the adapter's change of {path} has shape {sizes}; the module maps {shape.num_inputs} values to "
                f"{shape.num_outputs}"
            )


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


def _is_fit(change: ModuleDelta, shape: LinearShape) -> bool:
    match change:
        case LowRank(down, up):
            is_low_rank = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] > 0
            return is_low_rank and (down.shape[1], up.shape[0]) == (shape.num_inputs, shape.num_outputs)
        case InputScale(factors):
            return factors.shape == (shape.num_inputs,)
        case OutputScale(factors):
            return factors.shape == (shape.num_outputs,)
