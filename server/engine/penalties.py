"""Bias and penalties, on the device. Knows no sequences: each row brings a table of the tokens that it changes."""

from collections.abc import Mapping

import numpy as np
import torch

from server.engine.placing import placed
from server.engine.token_table import TokenTable

_LARGEST = 1e30
"""Logits stay within it, whatever the penalties, so that dividing them by a small temperature overflows nothing."""


def apply_tables(logits: torch.Tensor, tables: Mapping[int, TokenTable]) -> None:
    """Change float32 logits `[S, V]` in place, at each row by its table.

    Bias is added; then positive logits are divided by the repetition penalty and others multiplied (CTRL, Keskar et al.
    2019); then count × frequency_penalty + presence_penalty is taken off, as in OpenAI's API reference.
    """
    if not tables:
        return
    vocab_size = logits.shape[1]
    flat_ids = np.concatenate([row * vocab_size + table.ids for row, table in tables.items()])
    amounts = np.concatenate([table.amounts for table in tables.values()], axis=1)
    index = placed(flat_ids, torch.long, logits.device)
    bias, factor, deduction = placed(amounts, torch.float64, logits.device)
    flat = logits.view(-1)
    before = flat[index].double()
    biased = before + bias
    repeated = torch.where(biased > 0, biased / factor, biased * factor)
    after = (repeated - deduction).clamp(-_LARGEST, _LARGEST)
    flat[index] = torch.where(before.isinf(), before, after).float()  # what the model rules out stays so
