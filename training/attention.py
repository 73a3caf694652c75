"""Which attention implementation of transformers trains faster. Knows no data and no soft prompt's method."""

import torch
from transformers import PreTrainedModel

_SCORES_LIMIT = 2 << 30
"""Bytes of attention scores that may be kept for the backward pass."""
_BYTES_PER_SCORE = 8


def prefer_plain_attention(weights: PreTrainedModel, *, device: torch.device, batch_size: int, longest: int) -> None:
    """Switch to plain (eager) attention where short rows are trained on a CPU.

    The backward pass of SDPA costs a fifth of a step there. Plain attention keeps every score, `batch * heads *
    longest^2` a layer, so it is taken only where they are small.
    """
    config = weights.config.get_text_config()
    scores = batch_size * config.num_attention_heads * longest**2 * config.num_hidden_layers
    if device.type == "cpu" and scores * _BYTES_PER_SCORE <= _SCORES_LIMIT:
        weights.set_attn_implementation("eager")
