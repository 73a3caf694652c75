"""How our attention gets into stock models."""

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from server.engine.errors import ModelUnsupported
from server.engine.families import alibi_slopes
from tests.engine.build import engine_of, greedy, run_to_end
from tests.tiny import HIDDEN_SIZE


@pytest.mark.parametrize("num_heads", [1, 2, 4, 6, 8, 12, 16, 24, 25, 32])
def test_alibi_slopes_are_those_of_transformers(num_heads: int) -> None:
    bias = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), num_heads, torch.float32)  # [H, 1, 2]
    assert torch.allclose(alibi_slopes(num_heads), bias[:, 0, 1])


def test_a_sliding_window_is_kept() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=257,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.15,
        eos_token_id=256,
    )
    model = MistralForCausalLM(config).eval()
    prompt = list(range(50))
    expected = model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, 50), max_new_tokens=20, do_sample=False
    )
    engine = engine_of(model, max_num_batched_tokens=64)
    engine.add_request(1, prompt, greedy(20))
    assert run_to_end(engine)[1] == expected[0, 50:].tolist()


def test_a_family_that_takes_no_attention_from_outside_is_refused_by_name() -> None:
    from transformers import GPTJConfig, GPTJForCausalLM

    config = GPTJConfig(vocab_size=257, n_embd=HIDDEN_SIZE, n_layer=2, n_head=4, n_positions=256, rotary_dim=8)
    with pytest.raises(ModelUnsupported, match="gptj"):
        engine_of(GPTJForCausalLM(config).eval(), max_model_len=200)
