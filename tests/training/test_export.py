"""What is published is what was trained: PEFT, given the files, says the same as the model in memory."""

import io
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from adapters.base_model import load_weights
from adapters.manifest import ManifestDraft
from tests.tiny import Family
from tests.training.rows import tiny_config
from training.export import adapter_files
from training.model import add_adapter
from training.prepare import prepare_run
from training.progress import training_progress
from training.trainer import build_trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_the_files_of_an_adapter_give_the_logits_of_the_trained_model(
    tmp_path: Path, bases: dict[Family, Path], family: Family
) -> None:
    console = Console(file=io.StringIO())
    config = tiny_config(bases[family], tmp_path)
    run = prepare_run(config, console)
    trained = add_adapter(load_weights(run.base.path, dtype=torch.float32, device=CPU), run.base, config, [])
    untrained_prompt = trained.get_prompt(batch_size=1).detach().clone()
    with training_progress(console) as reporter:
        build_trainer(trained, run, config, device=CPU, output_dir=tmp_path, reporter=reporter).train()
    draft = ManifestDraft(base=run.base.identity, chat_format=run.chat_format)
    for name, content in adapter_files(trained, draft, base_name="tiny", card="").by_name().items():
        (tmp_path / "adapter").mkdir(exist_ok=True)
        (tmp_path / "adapter" / name).write_bytes(content)

    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bases[family]), tmp_path / "adapter")
    input_ids = torch.tensor([run.train.examples[0].features()["input_ids"]])
    with torch.inference_mode():
        assert not torch.equal(loaded.get_prompt(batch_size=1), untrained_prompt)
        assert torch.equal(loaded.eval()(input_ids=input_ids).logits, trained.eval()(input_ids=input_ids).logits)
