"""The same engine on a CUDA device says what it says on the CPU."""

import random

import pytest
import torch
from transformers import PreTrainedModel

from adapters.weights import SoftPrompt
from server.engine.engine import Engine
from server.engine.sampling_params import SamplingParams
from tests.engine.build import engine_of, greedy, run_to_end
from tests.tiny import HIDDEN_SIZE, Family, tiny_model

pytestmark = pytest.mark.gpu


def _on_cuda(family: Family) -> PreTrainedModel:
    model = tiny_model(family)
    torch.nn.Module.to(model, torch.device("cuda"))
    return model


def _answers(engine: Engine) -> dict[int, list[int]]:
    """32 mixed requests, greedy and seeded, on the base and on three soft prompts."""
    rng = random.Random(3)
    soft_prompts = [
        SoftPrompt(str(n), torch.randn(n, HIDDEN_SIZE, generator=torch.Generator().manual_seed(n)) / 2)
        for n in (3, 16, 40)
    ]
    for number in range(32):
        prompt = [rng.randrange(256) for _ in range(rng.choice((1, 7, 30, 200)))]
        params = greedy(16) if number % 3 else SamplingParams(max_tokens=16, top_p=0.9, top_k=50, seed=number)
        engine.add_request(number, prompt, params, ([None, *soft_prompts])[number % 4])
    return run_to_end(engine)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_cuda_answers_as_the_cpu_does(family: Family) -> None:
    on_cuda = engine_of(_on_cuda(family))
    assert _answers(on_cuda) == _answers(engine_of(tiny_model(family)))


def test_cuda_preempts_and_recovers() -> None:
    engine = engine_of(_on_cuda("llama"), num_blocks=52)
    assert _answers(engine) == _answers(engine_of(tiny_model("llama")))
