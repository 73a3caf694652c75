"""Finds out what each attention layer of a model stores and asks for. Knows no batches and no cache."""

import torch
from transformers import PreTrainedModel

from adapters.fitting import LayerShape
from server.engine.attention import LayerNeeds
from server.engine.errors import ModelUnsupported
from server.engine.families import use_attention
from server.engine.step_layout import SEES_ALL, Reach


def probe_layers(model: PreTrainedModel, reaches: dict[int, Reach]) -> dict[int, LayerNeeds]:
    """What each attention layer needs, by its index, seen by running one token: no family's config to interpret.

    `reaches` is what `find_reaches` found. Leaves the model to `use_attention`. Raises ModelUnsupported.
    """
    layers: dict[int, LayerNeeds] = {}

    def record(
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        reach: Reach = SEES_ALL,
        **others: object,
    ) -> torch.Tensor:
        weighing = frozenset(name for name, given in others.items() if name != "scale" and given is not None)
        layers[layer] = LayerNeeds(LayerShape(key.shape[0], key.shape[2], value.shape[2]), reach, weighing)
        return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])

    use_attention(model, record, reaches)
    try:
        with torch.inference_mode():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    except ModelUnsupported:
        raise
    except Exception as error:
        raise ModelUnsupported(
            f"models of type {model.config.model_type} cannot be computed packed: {error}"
        ) from error
    if not layers:
        raise ModelUnsupported(f"models of type {model.config.model_type} take no attention from outside")
    return layers
