"""Log-probabilities against a float64 log-softmax of the model's own logits."""

import pytest
import torch

from server.engine.sampling_params import SamplingParams
from server.engine.token_table import TokenTable
from tests.engine.rows import Allowing, choices, row

LOGITS = 5 * torch.randn(6, 2000, generator=torch.Generator().manual_seed(4))


def test_they_are_those_of_the_raw_logits_whatever_the_settings() -> None:
    table = TokenTable(SamplingParams(max_tokens=1, logit_bias=((3, 100.0),)), [])
    rows = [
        row(temperature=0.0, num_logprobs=5),
        row(seed=1, num_logprobs=20),
        row(seed=2, temperature=3.0, top_k=50, num_logprobs=1),
        row(temperature=0.0, table=table, num_logprobs=3),
        row(temperature=0.0, constraint=Allowing({1999}), num_logprobs=0),
        row(seed=3),
    ]
    expected = LOGITS.double().log_softmax(dim=-1)
    made = choices(LOGITS, rows)
    assert [made[i].token_id for i in (3, 4)] == [3, 1999]
    assert made[5].logprobs is None
    for i, choice in enumerate(made[:5]):
        report = choice.logprobs
        assert report is not None
        assert report.token_id == choice.token_id
        assert report.logprob == pytest.approx(float(expected[i, choice.token_id]), abs=1e-5)
        values, ids = expected[i].topk(rows[i].params.num_logprobs or 0)
        assert [token_id for token_id, _ in report.top] == ids.tolist()
        assert [logprob for _, logprob in report.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_the_chosen_token_may_be_none_of_the_likeliest() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    (choice,) = choices(logits, [row(temperature=0.0, constraint=Allowing({3}), num_logprobs=2)])
    assert choice.logprobs is not None
    assert choice.logprobs.token_id == 3
    assert [token_id for token_id, _ in choice.logprobs.top] == [0, 1]


def test_fewer_tokens_than_asked_for() -> None:
    """A small vocabulary, and one of which the model rules most out: minus infinity is no number for a client."""
    (choice,) = choices(torch.tensor([[1.0, 0.0, -1.0]]), [row(temperature=0.0, num_logprobs=20)])
    assert choice.logprobs is not None
    assert [token_id for token_id, _ in choice.logprobs.top] == [0, 1, 2]
    logits = torch.full((1, 100), -torch.inf)
    logits[0, [8, 5]] = torch.tensor([1.0, 1.0])
    (choice,) = choices(logits, [row(temperature=0.0, num_logprobs=20)])
    assert choice.logprobs is not None
    assert {token_id for token_id, _ in choice.logprobs.top} == {5, 8}
    assert choice.logprobs.logprob == pytest.approx(-0.6931472)
