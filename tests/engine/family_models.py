"""Tiny random models of every causal family that we know how to make small, of some 20,000 parameters each."""

from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, Gemma3Config, PretrainedConfig, PreTrainedModel
from transformers.integrations.heterogeneity.configuration_utils import AmbiguousGlobalPerLayerAttributeError
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB_SIZE = 97
WINDOW = 6
"""Keys that a layer with a sliding window, or with chunks, sees."""

_LOCAL_AND_FULL = ["sliding_attention", "full_attention", "sliding_attention"]

_SIZES: dict[str, Any] = {
    # by whatever name a family's config has it
    **dict.fromkeys(("vocab_size",), VOCAB_SIZE),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embed_dim", "emb_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "mlp_intermediate_size"), 32),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "dense_intermediate_size", "hidden_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "v_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("rotary_dim", "qk_rope_head_dim"), 4),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 512),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size", "local_attention_window"), WINDOW),
    **dict.fromkeys(("initializer_range", "init_std"), 0.3),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "moe_num_shared_experts", "n_group", "topk_group"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("hidden_dropout", "attention_dropout"), 0.0),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), VOCAB_SIZE - 1),
    "qk_head_dim": 12,
    "tie_word_embeddings": False,
    "is_decoder": True,
}

_LATENT: dict[str, Any] = {"head_dim": None, "num_key_value_heads": 4}  # keys and values of two sizes, from one latent

_SPECIAL: dict[str, dict[str, Any]] = {
    # what a family wants otherwise; None leaves the family's own value
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu"), _LATENT),
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8},
    "bert": {"initializer_range": 0.6},
    "bloom": {"initializer_range": 0.15},
    "cohere2": {"layer_types": _LOCAL_AND_FULL},
    "dbrx": {
        "head_dim": None,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "ernie": {"initializer_range": 0.6},
    "falcon": {"head_dim": None, "new_decoder_architecture": True},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": _LOCAL_AND_FULL,
        "vocab_size_per_layer_input": VOCAB_SIZE,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0, 0.0, 0.0],
        "intermediate_size": [32, 32, 32],
    },
    "gemma4_text": {
        "head_dim": 8,
        "global_head_dim": 16,
        "num_key_value_heads": 2,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": VOCAB_SIZE,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "gpt_neo": {"num_layers": 4, "num_hidden_layers": None, "attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["full_attention"] * 3, "mamba_n_heads": 8, "mamba_d_head": 8},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm3": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["full_attention"] * 3},
    "llama4_text": {"layer_types": ["chunked_attention", "full_attention", "chunked_attention"]},
    "longcat_flash": {"head_dim": 4, "num_key_value_heads": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "minimax": {"layer_types": ["full_attention"] * 3},
    "recurrent_gemma": {"head_dim": None, "layer_types": None},
    "reformer": {"axial_pos_embds_dim": [16, 16]},
    "xlstm": {"qk_head_dim": None, "v_head_dim": None},
    "zamba2": {"num_hidden_layers": None},
    "zaya": {"num_experts_per_tok": 1},
}


_EYES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def family_config(family: str, **changes: Any) -> PretrainedConfig:
    """A tiny config of a model type; where the family mixes local and full attention, both are there."""
    config_class = CONFIG_MAPPING[family]
    if family == "gemma3":
        text = family_config("gemma3_text", **changes).to_dict()
        return Gemma3Config(text_config=text, vision_config=_EYES, mm_tokens_per_image=4, image_token_index=95)
    default = config_class()
    settings = {name: value for name, value in _SIZES.items() if name == "vocab_size" or _knows(default, name)}
    if "sliding_attention" in (getattr(default, "layer_types", None) or ()):
        settings["layer_types"] = _LOCAL_AND_FULL
    settings |= _SPECIAL.get(family, {}) | changes
    return config_class(**{name: value for name, value in settings.items() if value is not None})


def _knows(config: PretrainedConfig, name: str) -> bool:
    try:
        return hasattr(config, name)
    except AmbiguousGlobalPerLayerAttributeError:
        return False  # Gemma 4 has it for each layer


def family_model(family: str, **changes: Any) -> PreTrainedModel:
    """A random model in float32 and eval mode, with biases that are not zero."""
    return model_of(getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]), family_config(family, **changes))


def model_of(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """A random model of a config, as `family_model` makes them."""
    torch.manual_seed(0)
    model: PreTrainedModel = model_class(config).float()
    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            bias = getattr(module, "bias", None)
            if isinstance(module, torch.nn.Linear) and bias is not None and module is not head:
                bias.normal_(std=0.1)
            sinks = getattr(module, "sinks", None)
            if isinstance(sinks, torch.nn.Parameter):
                sinks.normal_()
    model.train(mode=False)
    return model
