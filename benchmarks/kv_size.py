"""How much memory the KV of a token takes, and in which blocks hotprompt keeps it. Knows no server."""

from pathlib import Path

import torch
from transformers import AutoConfig

_BLOCK_TOKENS = 16
_CUDA_BLOCK_TOKENS = 256


def bytes_per_token(base: Path, dtype: torch.dtype) -> int:
    """Keys and values of one token over all layers of the base model in a directory."""
    config = AutoConfig.from_pretrained(base).get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * dtype.itemsize)


def block_tokens(dtype: torch.dtype) -> int:
    """Tokens of a block: what the attention of a CUDA device asks for, where one computes in this dtype, or 16."""
    is_on_cuda = torch.cuda.is_available() and dtype != torch.float32
    return _CUDA_BLOCK_TOKENS if is_on_cuda else _BLOCK_TOKENS
