"""Probes: which prompts are taken, what stands in them, and that PEFT answers them the same again."""

import io
from pathlib import Path

import pytest
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from adapters.probes import Probes
from adapters.probing import answering, base_answer, given_answer, greedy_answer
from tests.tiny import EOS_ID, Family
from tests.training.rows import ENGLISH, tiny_config, write_jsonl
from training.probes import ANSWER_TOKENS, LONGEST_PROMPT, NUM_PROBES, choose_prompts
from training.run import train


def _trained(base: Path, directory: Path) -> tuple[Probes, PeftModel, str | None]:
    config = tiny_config(base, directory, eval_data=write_jsonl(directory / "held_out.jsonl", ENGLISH[:3]))
    result = train(config, console=Console(file=io.StringIO()))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(result.path))
    assert result.manifest.probes is not None
    return result.manifest.probes, model, result.manifest.chat_format_fingerprint


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_a_run_leaves_probes_that_peft_answers_the_same_again(
    family: Family, tmp_path: Path, bases: dict[Family, Path]
) -> None:
    probes, model, fingerprint = _trained(bases[family], tmp_path)
    assert (probes.dtype, probes.chat_format, len(probes.items)) == ("float32", fingerprint, NUM_PROBES)
    with answering(model):
        for probe in probes.items:
            again = greedy_answer(model, probe.prompt_ids, max_tokens=ANSWER_TOKENS, stop_ids=[EOS_ID])
            assert again == probe.expected_ids
            assert given_answer(model, probe.prompt_ids, again).mean_logprob == pytest.approx(
                probe.mean_logprob, abs=1e-5
            )
        bare = [base_answer(model, probe.prompt_ids, max_tokens=len(probe.expected_ids)) for probe in probes.items]
    assert bare != [probe.expected_ids for probe in probes.items]


def test_eight_prompts_are_spread_over_the_data() -> None:
    prompts = [(index, index) for index in range(80)]
    assert choose_prompts(prompts, longest=2) == [(index, index) for index in range(0, 80, 10)]


def test_long_prompts_and_repeated_ones_are_left_out() -> None:
    prompts = [(1,), (1,), (2,) * (LONGEST_PROMPT + 1), (), (3,)]
    assert choose_prompts(prompts, longest=LONGEST_PROMPT) == [(1,), (3,)]
