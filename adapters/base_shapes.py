"""The shapes of a base model's modules and KV, without its weights: whether an adapter fits it. Knows no files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from adapters.errors import AdapterIncompatible
from adapters.fitting import LayerShape, LinearShape, delta_problem, kv_problem, linear_shape, linear_shapes
from adapters.injections import Injection, KVRows, WeightDelta


@dataclass(frozen=True, slots=True)
class BaseShapes:
    """`linear` goes by the module's path, and has the head's, which the native decoder takes changes of.

    `layers` is None for a model that does not tell what it stores without being computed.
    """

    linear: Mapping[str, LinearShape]
    layers: Mapping[int, LayerShape] | None

    @classmethod
    def of(cls, path: Path) -> "BaseShapes":
        """The shapes of the model in a directory that `open_base_model` has opened; its weights are not read."""
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        head = model.get_output_embeddings()
        heads = {name: linear_shape(module) for name, module in model.named_modules() if module is head}
        return cls(linear_shapes(model) | heads, _stored_layers(model))

    def check(self, injection: Injection) -> None:
        """Raises AdapterIncompatible, with the reason, for what no server of this base model can apply."""
        problem = None
        if isinstance(injection, WeightDelta):
            problem = delta_problem(injection, self.linear)
        elif isinstance(injection, KVRows) and self.layers is not None:
            problem = kv_problem(injection, self.layers)
        if problem is not None:
            raise AdapterIncompatible(problem)


def _stored_layers(model: PreTrainedModel) -> dict[int, LayerShape] | None:
    """What each layer stores of one token, seen by running one on no device: no family's config to interpret."""
    ids = torch.zeros(1, 1, dtype=torch.long, device="meta")
    model.config.pad_token_id = None  # some look for it among the ids, which have no values here
    try:
        with torch.inference_mode():
            cache: Any = model(input_ids=ids, use_cache=True).past_key_values
        layers = {
            index: LayerShape(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3])
            for index, layer in enumerate(cache.layers)
        }
    except Exception:  # a family that reads numbers, or keeps another kind of cache: there is no common class
        return None
    is_one_each = len(layers) == model.config.get_text_config().num_hidden_layers  # and none shares another's
    return layers if is_one_each else None
