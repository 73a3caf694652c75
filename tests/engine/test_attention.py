"""Attention over the paged cache against the formula, one query at a time, in a cache full of what is not a number."""

import pytest
import torch

from adapters.fitting import LayerShape
from server.engine.attention import PagedAttention
from tests.engine.attention_cases import MIXED, RULES, Case, Rule


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_each_query_attends_to_its_own_sequence_only(rule: Rule) -> None:
    case = Case.of(MIXED, LayerShape(num_kv_heads=2, key_dim=8, value_dim=6))
    attention = PagedAttention(case.cache)
    with attention.step(case.batch):
        packed = case.attended(attention.attend, rule)
    assert torch.allclose(packed.double(), case.expected(rule), atol=1e-5)
