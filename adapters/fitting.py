"""Whether what an adapter injects has the shapes of a base model. Knows no files, and not how anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adapters.injections import InputScale, KVRows, LowRank, ModuleDelta, OutputScale, WeightDelta


@dataclass(frozen=True, slots=True)
class LinearShape:
    """How many values a linear module maps to how many."""

    num_inputs: int
    num_outputs: int


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer stores for a token: `num_kv_heads` keys of `key_dim` and values of `value_dim`."""

    num_kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def num_elements(self) -> int:
        return self.num_kv_heads * (self.key_dim + self.value_dim)


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
    return {path: linear_shape(module) for path, module in linear_modules(model).items()}


def linear_shape(module: nn.Module) -> LinearShape:
    """Of a Linear, or of GPT-2's Conv1D, whose weight lies the other way round."""
    if isinstance(module, nn.Linear):
        return LinearShape(module.in_features, module.out_features)
    assert isinstance(module, Conv1D), "there are these two kinds"
    return LinearShape(module.nx, module.nf)


def kv_problem(rows: KVRows, layers: Mapping[int, LayerShape]) -> str | None:
    """Why KV rows are not what each of these layers stores; None where they are."""
    given = tuple(rows.keys.shape)
    if rows.values.shape != rows.keys.shape or rows.keys.ndim != 4 or rows.num_virtual_tokens == 0:
        return f"the adapter's keys have shape {list(given)} and its values {list(rows.values.shape)}"
    if given[0] != len(layers):
        return f"the adapter has keys and values for {given[0]} layers; the model has {len(layers)}"
    shape = LayerShape(given[2], given[3], given[3])
    for index, layer in layers.items():
        if layer != shape:
            return (
                f"the adapter has {given[2]} heads of {given[3]} values; layer {index} of the model has "
                f"{layer.num_kv_heads} heads, with keys of {layer.key_dim} and values of {layer.value_dim}"
            )
    return None


def delta_problem(delta: WeightDelta, shapes: Mapping[str, LinearShape]) -> str | None:
    """Why a weight delta does not change linear modules of these shapes alone; None where it does."""
    for path, change in delta.modules.items():
        shape = shapes.get(path)
        if shape is None:
            return f"the adapter changes {path}, which is no linear module that every token goes through"
        if not _is_fit(change, shape):
            sizes = " and ".join(str(list(tensor.shape)) for tensor in change.tensors)
            return (
                f"the adapter's change of {path} has shape {sizes}; the module maps {shape.num_inputs} values to "
                f"{shape.num_outputs}"
            )
    return None


def _is_fit(change: ModuleDelta, shape: LinearShape) -> bool:
    match change:
        case LowRank(down, up):
            is_low_rank = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] > 0
            return is_low_rank and (down.shape[1], up.shape[0]) == (shape.num_inputs, shape.num_outputs)
        case InputScale(factors):
            return factors.shape == (shape.num_inputs,)
        case OutputScale(factors):
            return factors.shape == (shape.num_outputs,)
