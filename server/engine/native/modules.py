"""The linear modules of the native decoder, and what fits them. Knows no library and no packed weights."""

from collections.abc import Mapping
from types import MappingProxyType

from adapters.injections import InputScale, WeightDelta
from server.engine.errors import InjectionUnfit
from server.engine.fitting import LinearShape, require_delta_fit
from server.engine.native.weights import DecoderShape

_SHARING = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
"""Modules that are computed in one product with others, from the same inputs."""


def linear_modules(shape: DecoderShape) -> Mapping[str, LinearShape]:
    """By path in the stock model, in the order in which decoder.cpp numbers them: see `Module` there."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    layer = {
        "self_attn.q_proj": LinearShape(hidden, queries),
        "self_attn.k_proj": LinearShape(hidden, keys),
        "self_attn.v_proj": LinearShape(hidden, keys),
        "self_attn.o_proj": LinearShape(queries, hidden),
        "mlp.gate_proj": LinearShape(hidden, inner),
        "mlp.up_proj": LinearShape(hidden, inner),
        "mlp.down_proj": LinearShape(inner, hidden),
    }
    modules = {
        f"model.layers.{index}.{name}": linear for index in range(shape.num_layers) for name, linear in layer.items()
    }
    modules["lm_head"] = LinearShape(hidden, shape.vocab_size)
    return MappingProxyType(modules)


def require_native_fit(delta: WeightDelta, modules: Mapping[str, LinearShape]) -> None:
    """Raise InjectionUnfit, with the reason, for a weight delta that the native decoder cannot compute."""
    require_delta_fit(delta, modules)
    for path, change in delta.modules.items():
        if isinstance(change, InputScale) and path.endswith(_SHARING):
            raise InjectionUnfit(
                f"the adapter has input factors for {path}, which the native decoder computes from the same inputs as "
                "other modules"
            )
