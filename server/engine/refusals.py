"""Which models are refused by what they say of themselves, before anything is computed. Knows no batches and no cache.

Each of these could pass a check on short prompts and still be served wrong: state beside the KV of attention, keys
chosen by content, rotary frequencies that change with the longest sequence of a batch.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel

from server.engine.config import EngineConfig
from server.engine.errors import ModelUnsupported
from server.engine.own_attention import has_own_attention

_SERVED_LAYER_TYPES = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


def require_servable(model: PreTrainedModel, config: EngineConfig) -> None:
    """Raise ModelUnsupported, with every reason, for a model that the packed engine cannot compute by design."""
    reasons = [*_reasons(model), *_rope_reasons(model, config), *_temperature_reasons(model, config)]
    if reasons:
        raise ModelUnsupported(f"models of type {model.config.model_type} are not served: {'; '.join(reasons)}")


def _reasons(model: PreTrainedModel) -> Iterator[str]:
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        yield "they have an encoder, and soft prompts and the KV cache are a decoder's"
    others = sorted(set(getattr(config, "layer_types", None) or ()) - _SERVED_LAYER_TYPES)
    if others:
        yield f"their layers are of type {', '.join(others)}, which keep more than the keys and values of each token"
    elif model._is_stateful and not hasattr(config, "layer_types"):
        yield "they keep a recurrent state"
    if getattr(config, "hidden_size_per_layer_input", None):
        yield "they look up a second embedding of each token, which soft prompts have not"
    parameters = inspect.signature(model.forward).parameters
    needed = {"inputs_embeds", "logits_to_keep"}
    if not has_own_attention(model):
        needed.add("position_ids")
    missing = sorted(needed - parameters.keys())
    if missing:
        yield f"their forward takes no {' and no '.join(missing)}"


def _rope_reasons(model: PreTrainedModel, config: EngineConfig) -> Iterator[str]:
    """Rotary frequencies that transformers computes anew for the longest sequence at hand, neighbours included."""
    limits: dict[str, int] = {}
    for module in model.modules():
        rope_types = getattr(module, "rope_type", None)
        by_layer_type = rope_types if isinstance(rope_types, dict) else {None: rope_types}
        for layer_type, rope_type in by_layer_type.items():
            if isinstance(rope_type, str) and (rope_type == "longrope" or "dynamic" in rope_type):
                limits[rope_type] = _rope_limit(module, rope_type, layer_type)
    for rope_type, limit in limits.items():
        if config.max_model_len > limit:
            yield f"their {rope_type} positions depend on the batch beyond {limit} tokens: set --max-model-len {limit}"


def _temperature_reasons(model: PreTrainedModel, config: EngineConfig) -> Iterator[str]:
    """Llama 4 scales queries by their place in the row at hand, which is not their position here."""
    limits = {
        int(module.floor_scale) - 1  # type: ignore[arg-type]
        for module in model.modules()
        if getattr(module, "attn_temperature_tuning", False) and not getattr(module, "use_rope", True)
    }
    if limits and max(config.max_model_len, config.max_num_batched_tokens) > min(limits):
        limit = min(limits)
        yield f"their queries are scaled beyond {limit} tokens: set --max-model-len and the batch's tokens to {limit}"


def _rope_limit(module: Any, rope_type: str, layer_type: str | None) -> int:
    """The longest sequence up to which the frequencies stay the same."""
    if rope_type == "longrope":
        parameters = module.config.rope_parameters
        return int((parameters if layer_type is None else parameters[layer_type])["original_max_position_embeddings"])
    return int(module.max_seq_len_cached)
