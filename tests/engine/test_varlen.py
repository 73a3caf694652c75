"""Attention page by page, over a plain statement of the kernel, against the formula and against what gathers keys."""

import pytest
import torch

from adapters.fitting import LayerShape
from server.engine.attention import LayerNeeds, PagedAttention
from server.engine.cuda.accelerator import find_accelerator, torch_kernel
from server.engine.cuda.attention import VarlenAttention, served_layers
from server.engine.kv_cache import KVCache
from server.engine.step_layout import SEES_ALL, Reach
from tests.engine.accelerating import varlen_attn
from tests.engine.attention_cases import DECODING, MIXED, NUM_HEADS, RULES, Case, Rule

PLAIN = {name: RULES[name] for name in ("all keys", "a window")} | {
    "a window of one": Rule(reach=Reach(window=1)),
    "a window beyond every prompt": Rule(reach=Reach(window=4096)),
}
SHAPE = LayerShape(num_kv_heads=2, key_dim=8, value_dim=8)


@pytest.mark.parametrize("lengths", [MIXED, DECODING], ids=["mixed", "decoding"])
@pytest.mark.parametrize("num_kv_heads", [1, 2, NUM_HEADS])
@pytest.mark.parametrize("rule", PLAIN.values(), ids=PLAIN.keys())
def test_pages_are_read_as_the_formula_says(
    rule: Rule, num_kv_heads: int, lengths: tuple[tuple[int, int], ...]
) -> None:
    shape = LayerShape(num_kv_heads, key_dim=8, value_dim=8)
    case, other = Case.of(lengths, shape), Case.of(lengths, shape)
    attention = VarlenAttention(case.cache, varlen_attn, frozenset({0}))
    with attention.step(case.batch):
        paged = case.attended(attention.attend, rule)
    gathering = PagedAttention(other.cache)
    with gathering.step(other.batch):
        gathered = other.attended(gathering.attend, rule)
    assert torch.allclose(paged.double(), case.expected(rule), atol=1e-5)
    assert torch.allclose(paged, gathered, atol=1e-5)
    assert torch.equal(case.cache.keys[0].nan_to_num(-1), other.cache.keys[0].nan_to_num(-1))
    assert torch.equal(case.cache.values[0].nan_to_num(-1), other.cache.values[0].nan_to_num(-1))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_layers_that_the_kernel_does_not_compute_gather_their_keys(rule: Rule) -> None:
    case = Case.of(MIXED, LayerShape(num_kv_heads=2, key_dim=8, value_dim=6))
    attention = VarlenAttention(case.cache, varlen_attn, frozenset())
    with attention.step(case.batch):
        packed = case.attended(attention.attend, rule)
    assert torch.allclose(packed.double(), case.expected(rule), atol=1e-5)


@pytest.mark.parametrize(
    ("needs", "served"),
    [
        (LayerNeeds(SHAPE, SEES_ALL, frozenset()), True),
        (LayerNeeds(SHAPE, Reach(window=5), frozenset()), True),
        (LayerNeeds(LayerShape(2, 256, 256), SEES_ALL, frozenset()), True),
        (LayerNeeds(SHAPE, Reach(chunk=8), frozenset()), False),
        (LayerNeeds(SHAPE, SEES_ALL, frozenset({"softcap"})), False),
        (LayerNeeds(SHAPE, SEES_ALL, frozenset({"alibi_slopes"})), False),
        (LayerNeeds(LayerShape(2, 8, 6), SEES_ALL, frozenset()), False),
        (LayerNeeds(LayerShape(2, 12, 12), SEES_ALL, frozenset()), False),
        (LayerNeeds(LayerShape(2, 264, 264), SEES_ALL, frozenset()), False),
    ],
)
def test_which_layers_the_kernel_computes(needs: LayerNeeds, served: bool) -> None:  # noqa: FBT001
    assert served_layers({3: needs}) == (frozenset({3}) if served else frozenset())


@pytest.mark.parametrize("lengths", [MIXED, DECODING], ids=["mixed", "decoding"])
def test_torchs_own_kernel_takes_our_call(lengths: tuple[tuple[int, int], ...]) -> None:
    """On tensors that are nowhere: torch checks the call and gives back the shape."""
    kernel = torch_kernel()
    assert kernel is not None
    batch = Case.of(lengths, SHAPE).batch
    cache = KVCache({0: SHAPE}, num_blocks=42, block_size=4, dtype=torch.bfloat16, device=torch.device("meta"))
    attention = VarlenAttention(cache, kernel, frozenset({0}))
    query, key, value = (
        torch.empty(heads, batch.num_tokens, 8, dtype=torch.bfloat16, device="meta") for heads in (NUM_HEADS, 2, 2)
    )
    with attention.step(batch):
        attended = attention.attend(0, query, key, value, scale=1.0, reach=Reach(window=5))
    assert attended.shape == (batch.num_tokens, NUM_HEADS, 8)
    assert find_accelerator(torch.device("cpu"), torch.bfloat16) is None
