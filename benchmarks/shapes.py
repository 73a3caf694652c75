"""Shapes of known base models, to be filled with random weights. Downloads nothing, and knows no weights."""

from collections.abc import Callable, Mapping

from transformers import BloomConfig, LlamaConfig, PretrainedConfig, Qwen2Config


def _llama() -> PretrainedConfig:
    """Llama 3.1 8B, by its public config."""
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tie_word_embeddings=False,
    )


def _qwen() -> PretrainedConfig:
    """Qwen2.5 0.5B, by its public config."""
    return Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        use_sliding_window=False,
        tie_word_embeddings=True,
    )


def _bloom() -> PretrainedConfig:
    """BLOOM 560M, by its public config."""
    return BloomConfig(vocab_size=250_880, hidden_size=1024, n_layer=24, n_head=16)


def _bloom_vocabulary() -> PretrainedConfig:
    """BLOOM 560M's width and vocabulary with 2 of its 24 layers: what a large vocabulary costs, in minutes."""
    return BloomConfig(vocab_size=250_880, hidden_size=1024, n_layer=2, n_head=16)


def _tiny() -> PretrainedConfig:
    """For trying out what is done with the others."""
    return LlamaConfig(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )


SHAPES: Mapping[str, Callable[[], PretrainedConfig]] = {
    "llama-3.1-8b": _llama,
    "qwen2.5-0.5b": _qwen,
    "bloom-560m": _bloom,
    "bloom-vocabulary": _bloom_vocabulary,
    "tiny": _tiny,
}
