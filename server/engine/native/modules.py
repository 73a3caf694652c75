"""The linear modules of the native decoder. Knows no library and no packed weights."""

from collections.abc import Mapping
from types import MappingProxyType

from adapters.fitting import LinearShape
from server.engine.native.weights import DecoderShape


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
