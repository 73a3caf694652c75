"""Plain attention is taken where it is faster and its scores fit, and nowhere else."""

import pytest
import torch

from tests.tiny import tiny_model
from training.attention import prefer_plain_attention


@pytest.mark.parametrize(
    ("device", "longest", "expected"), [("cpu", 100, "eager"), ("cpu", 8000, "sdpa"), ("cuda", 100, "sdpa")]
)
def test_short_rows_on_a_cpu_take_plain_attention(device: str, longest: int, expected: str) -> None:
    model = tiny_model("llama")
    assert model.config._attn_implementation == "sdpa"
    prefer_plain_attention(model, device=torch.device(device), batch_size=8, longest=longest)
    assert model.config._attn_implementation == expected
