"""The chunked cross entropy and the lean layers compute what torch's and transformers' own do."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tiny import tiny_model
from training.lean_layers import lighten
from training.linear_loss import summed_cross_entropy


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 257), (700, 20_000), (100, 250_880)])
def test_chunks_add_up_to_the_whole(rows: int, vocabulary: int) -> None:
    torch.manual_seed(0)
    head, targets = 0.1 * torch.randn(vocabulary, 8), torch.randint(vocabulary, (rows,))
    hidden = torch.randn(rows, 8, requires_grad=True)
    loss = summed_cross_entropy(hidden, head, targets)
    (ours,) = torch.autograd.grad(3 * loss, hidden)
    plain, theirs = _plain(hidden, head, targets)
    exact, exactly = _plain(hidden.detach().double().requires_grad_(), head.double(), targets)
    assert loss.item() == pytest.approx(exact, rel=1e-5)
    assert plain == pytest.approx(exact, rel=1e-5)
    # Sums over a large vocabulary cost float32 some digits, ours and torch's alike.
    assert float((ours - exactly).norm()) <= max(2 * float((theirs - exactly).norm()), 1e-6 * float(exactly.norm()))
    assert float((ours - exactly).norm()) <= 2e-5 * float(exactly.norm())


def _plain(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> tuple[float, torch.Tensor]:
    loss = cross_entropy(hidden @ head.T, targets, reduction="sum")
    return loss.item(), torch.autograd.grad(3 * loss, hidden)[0]


def test_without_gradients_only_the_loss_is_taken() -> None:
    loss = summed_cross_entropy(torch.randn(3, 8), torch.randn(20, 8), torch.tensor([1, 2, 3]))
    assert not loss.requires_grad


def test_lean_layers_compute_the_same() -> None:
    stock = tiny_model("llama")
    stock.requires_grad_(requires_grad=False)
    lean = copy.deepcopy(stock)
    lighten(lean)
    results = []
    for model in (stock, lean):
        torch.manual_seed(1)
        embeddings = torch.randn(1, 9, 64, requires_grad=True)
        logits = model(inputs_embeds=embeddings).logits
        results.append((logits, *torch.autograd.grad(logits.square().sum(), embeddings)))
    (logits, gradient), (lean_logits, lean_gradient) = results
    assert torch.equal(logits, lean_logits)
    assert float((gradient - lean_gradient).norm()) <= 1e-5 * float(gradient.norm())
