"""Whole runs on tiny bases: what is published and printed, what is refused before training, and Ctrl-C."""

import io
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from adapters.base_model import open_base_model
from adapters.errors import AdapterNameInvalid, BaseModelError
from adapters.naming import check_name
from adapters.store import AdapterStore, read_card
from adapters.weights import check_compatible
from tests.tiny import Family, rows_of, save_tiny_base
from tests.training.rows import CHINESE, ENGLISH, tiny_config, write_jsonl
from training.config_reading import load_train_config
from training.conversation import rows_digest
from training.data import read_rows
from training.errors import ConfigError, DataError, NothingTrained
from training.run import train
from training.trainer import AdapterTrainer, build_trainer

CLASSIC = Path(__file__).parents[2] / "examples" / "alpaca_zh_bloom.yaml"


class CtrlC(io.StringIO):
    """A plain output at which somebody presses Ctrl-C as soon as it shows one of `moments`."""

    def __init__(self, moments: Sequence[str]) -> None:
        super().__init__()
        self._moments = list(moments)

    def write(self, text: str, /) -> int:
        written = super().write(text)
        if self._moments and self._moments[0] in text:
            del self._moments[0]
            signal.raise_signal(signal.SIGINT)
        return written


def _quiet() -> Console:
    return Console(file=io.StringIO())


def test_several_processes_are_refused_before_anything_is_read(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes"):
        train(tiny_config(bases["llama"], tmp_path, data=[tmp_path / "none.jsonl"]))


def test_a_run_publishes_a_complete_adapter(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = io.StringIO()
    config = tiny_config(
        bases["llama"], tmp_path, eval_data=write_jsonl(tmp_path / "held_out.jsonl", ENGLISH[:5]), logging_steps=2
    )
    start = time.perf_counter()
    result = train(config, console=Console(file=output))
    seconds = time.perf_counter() - start
    store = AdapterStore(tmp_path / "store")
    adapter = store.read(*store.resolve("tiny"))
    facts = adapter.manifest.training
    assert adapter.manifest == result.manifest
    assert result.path == store.path_of(result.manifest.digest)
    assert not result.interrupted
    check_compatible(adapter.manifest, open_base_model(str(bases["llama"]), home=tmp_path).identity)
    assert adapter.manifest.num_virtual_tokens == len("Answer:")

    assert facts is not None
    assert (facts.data, facts.rows, facts.steps, facts.interrupted) == ("rows.jsonl", len(ENGLISH), 3, False)
    assert facts.trainable_parameters == len("Answer:") * 64
    assert facts.final_loss == result.losses[-1].loss
    assert [point.step for point in result.losses] == [2, 3]  # the last, shorter window too
    assert facts.tokens_per_second == pytest.approx(facts.tokens / facts.seconds)
    assert 0 < facts.seconds <= seconds
    assert facts.data_digest == rows_digest(read_rows(tmp_path / "rows.jsonl"))
    assert facts.data_digest != rows_digest(read_rows(tmp_path / "held_out.jsonl"))
    assert facts.settings["num_virtual_tokens"] == 7
    assert facts.settings["dtype"] == "float32"
    assert facts.evaluation is not None
    assert facts.evaluation.rows == 5
    assert facts.evaluation.loss_after < facts.evaluation.loss_before

    card = read_card(store, adapter.manifest.digest)
    assert card is not None
    assert "base_model: tiny-llama" in card
    assert "| learning_rate | 0.02 |" in card
    assert "## Loss curve" in card
    assert f"{facts.evaluation.loss_before:.4f}" in card

    lines = output.getvalue()
    assert (
        f"trainable parameters: 448 of {448 + sum(p.numel() for p in _base(bases['llama']).parameters()):,} (" in lines
    )
    assert "step 2/3  loss " in lines
    assert "before training: loss " in lines


def _base(path: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(path)
    return model


def test_no_file_of_the_adapter_holds_a_path_of_this_machine(tmp_path: Path, bases: dict[Family, Path]) -> None:
    result = train(tiny_config(bases["llama"], tmp_path), console=_quiet())
    for file in result.path.iterdir():
        assert str(tmp_path.parent).encode() not in file.read_bytes(), file.name
        assert str(bases["llama"].parent).encode() not in file.read_bytes(), file.name
    config = json.loads((result.path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["tokenizer_name_or_path"]) == ("tiny-llama", "tiny-llama")


@pytest.mark.parametrize("init", ["text", "vocab", "random"])
def test_peft_loads_what_was_trained(tmp_path: Path, bases: dict[Family, Path], init: str) -> None:
    text = "Answer:" if init == "text" else None
    config = tiny_config(
        bases["gpt2"], tmp_path, prompt_tuning_init=init, prompt_tuning_init_text=text, num_virtual_tokens=9
    )
    result = train(config, console=_quiet())
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bases["gpt2"]), result.path)
    store = AdapterStore(tmp_path / "store")
    ours = store.read("tiny", result.manifest.digest)
    assert ours.injection.num_virtual_tokens == 9
    assert torch.equal(model.get_prompt(batch_size=1)[0].detach(), rows_of(ours))
    assert model(input_ids=torch.tensor([[1, 2]])).logits.shape[1] == 11


def test_equal_settings_give_equal_adapters_and_another_seed_another_one(
    tmp_path: Path, bases: dict[Family, Path]
) -> None:
    prompts = []
    for number, seed in enumerate([1, 1, 2]):
        config = tiny_config(
            bases["llama"],
            tmp_path,
            name=f"run-{number}",
            seed=seed,
            prompt_tuning_init="random",
            prompt_tuning_init_text=None,
        )
        result = train(config, console=_quiet())
        prompts.append(rows_of(AdapterStore(tmp_path / "store").read("x", result.manifest.digest)))
    assert torch.equal(prompts[0], prompts[1])
    assert not torch.equal(prompts[0], prompts[2])


def test_real_tokens_are_counted_without_padding_and_virtual_tokens(tmp_path: Path, bases: dict[Family, Path]) -> None:
    rows = [{"instruction": "a" * length, "input": "", "output": "b"} for length in (1, 30)]
    config = tiny_config(bases["bloom"], tmp_path, rows, max_steps=4)
    result = train(config, console=_quiet())
    overhead = len("Human: ") + len("\n\nAssistant: ") + len("b") + 1
    assert result.manifest.training is not None
    assert result.manifest.training.tokens == 4 * (1 + 30 + 2 * overhead)


def test_a_bfloat16_base_trains_a_float32_prompt(tmp_path: Path, bases: dict[Family, Path]) -> None:
    result = train(tiny_config(bases["llama"], tmp_path, dtype="bfloat16"), console=_quiet())
    assert result.manifest.training is not None
    assert result.manifest.training.settings["dtype"] == "bfloat16"
    assert b'"F32"' in (result.path / "adapter_model.safetensors").read_bytes()


def test_training_overfits_a_few_rows(tmp_path: Path, bases: dict[Family, Path]) -> None:
    rows = [{"instruction": "say a", "input": "", "output": "a"}, {"instruction": "say b", "input": "", "output": "a"}]
    config = tiny_config(
        bases["llama"],
        tmp_path,
        rows,
        eval_data=write_jsonl(tmp_path / "held_out.jsonl", rows),
        max_steps=60,
        learning_rate=0.1,
        num_virtual_tokens=20,
    )
    result = train(config, console=_quiet())
    assert result.manifest.training is not None
    assert result.manifest.training.evaluation is not None
    assert result.manifest.training.evaluation.exact_match_before == 0
    assert result.manifest.training.evaluation.exact_match_after == 1


def test_the_classic_recipe_runs_on_a_tiny_bloom(tmp_path: Path, bases: dict[Family, Path]) -> None:
    flags = {
        "base": str(bases["bloom"]),
        "data": write_jsonl(tmp_path / "rows.jsonl", CHINESE * 4),
        "store": tmp_path / "store",
        "run_dir": tmp_path / "run",
    }
    result = train(load_train_config(CLASSIC, ["logging_steps=1"], flags), console=_quiet())
    manifest = result.manifest
    assert manifest.num_virtual_tokens == len("下面是一段人与机器人的对话。".encode())
    assert manifest.chat_format is not None
    assert "Human: " in manifest.chat_format.template
    assert manifest.training is not None
    assert manifest.training.steps == len(result.losses) == 2


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_in_the_loop_publishes_what_is_trained(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = CtrlC(["step 3/"])
    config = tiny_config(
        bases["llama"], tmp_path, max_steps=1000, eval_data=write_jsonl(tmp_path / "held_out.jsonl", ENGLISH[:2])
    )
    result = train(config, console=Console(file=output))
    assert result.interrupted
    assert result.manifest.training is not None
    assert result.manifest.training.interrupted
    assert result.manifest.training.steps == 3
    assert result.manifest.training.evaluation is None
    assert AdapterStore(tmp_path / "store").resolve("tiny") == ("tiny", result.manifest.digest)
    assert "interrupted after 3 optimiser steps; saving what is trained" in output.getvalue()


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = CtrlC(["step 3/", "interrupted after"])
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(bases["llama"], tmp_path, max_steps=1000), console=Console(file=output))
    assert AdapterStore(tmp_path / "store").names() == []


def test_ctrl_c_before_the_first_step_saves_nothing(tmp_path: Path, bases: dict[Family, Path]) -> None:
    with pytest.raises(NothingTrained, match="before the first optimiser step: there is nothing to save"):
        train(tiny_config(bases["llama"], tmp_path), console=Console(file=CtrlC(["trainable parameters"])))
    assert AdapterStore(tmp_path / "store").names() == []


def test_ctrl_c_while_the_trainer_is_built_saves_nothing(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_and_press_ctrl_c(*arguments: Any, **settings: Any) -> AdapterTrainer:
        trainer = build_trainer(*arguments, **settings)
        signal.raise_signal(signal.SIGINT)
        return trainer

    monkeypatch.setattr("training.loop.build_trainer", build_and_press_ctrl_c)
    with pytest.raises(NothingTrained, match="there is nothing to save"):
        train(tiny_config(bases["llama"], tmp_path), console=_quiet())
    assert AdapterStore(tmp_path / "store").names() == []


def test_ctrl_c_while_measuring_keeps_the_adapter(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = CtrlC(["measuring after training"])
    config = tiny_config(bases["llama"], tmp_path, eval_data=write_jsonl(tmp_path / "held_out.jsonl", ENGLISH[:2]))
    result = train(config, console=Console(file=output))
    assert not result.interrupted
    assert result.manifest.training is not None
    assert result.manifest.training.evaluation is None
    assert "saving the adapter without it" in output.getvalue()


def test_ctrl_c_while_probes_are_made_keeps_the_adapter(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = CtrlC(["making probes"])
    result = train(tiny_config(bases["llama"], tmp_path), console=Console(file=output))
    assert result.manifest.probes is None
    assert AdapterStore(tmp_path / "store").resolve("tiny") == ("tiny", result.manifest.digest)


def test_a_second_ctrl_c_stops_at_once_while_probes_are_made(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = CtrlC(["step 3/", "making probes"])
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(bases["llama"], tmp_path, max_steps=1000), console=Console(file=output))
    assert AdapterStore(tmp_path / "store").names() == []


# -- refused before anything is trained --------------------------------------------------------------------------------


def test_bad_rows_are_reported_before_the_base_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2, field 'output': missing"):
        train(tiny_config(tmp_path / "no-base", tmp_path, [ENGLISH[0], {"instruction": "i"}]), console=_quiet())
    assert not (tmp_path / "store").exists()


def test_an_unknown_base_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"^--base /\S*no-base: no such directory"):
        train(tiny_config(tmp_path / "no-base", tmp_path), console=_quiet())


def test_the_bases_own_name_is_refused(tmp_path: Path, bases: dict[Family, Path]) -> None:
    with pytest.raises(AdapterNameInvalid, match="is the base model's own name"):
        train(tiny_config(bases["llama"], tmp_path, name="tiny-llama"), console=_quiet())
    assert check_name("tiny-llama")


def test_an_alias_is_not_overwritten(tmp_path: Path, bases: dict[Family, Path]) -> None:
    train(tiny_config(bases["llama"], tmp_path, max_steps=1), console=_quiet())
    AdapterStore(tmp_path / "store").alias("other", "tiny")
    with pytest.raises(ConfigError, match="name: 'other' is an alias in the store"):
        train(tiny_config(bases["llama"], tmp_path, name="other"), console=_quiet())


def test_a_base_without_a_chat_template_has_none_to_use(tmp_path: Path, bases: dict[Family, Path]) -> None:
    with pytest.raises(ConfigError, match="chat_format: 'model', but tiny-bloom has no chat template"):
        train(tiny_config(bases["bloom"], tmp_path, chat_format="model"), console=_quiet())


def test_a_template_that_refuses_the_system_prompt_is_named(tmp_path: Path) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    base = save_tiny_base("llama", tmp_path / "strict", chat_template=template)
    with pytest.raises(ConfigError, match=r"^chat_format: .*no system role"):
        train(tiny_config(base, tmp_path, system_prompt="Be brief."), console=_quiet())


def test_prompts_that_leave_no_room_for_an_answer_are_refused(tmp_path: Path, bases: dict[Family, Path]) -> None:
    with pytest.raises(DataError, match="data: no row keeps any of its answer within max_length 8"):
        train(tiny_config(bases["llama"], tmp_path, max_length=8), console=_quiet())


def test_rows_beyond_the_bases_positions_are_refused(tmp_path: Path, bases: dict[Family, Path]) -> None:
    config = tiny_config(bases["gpt2"], tmp_path, num_virtual_tokens=1000)
    with pytest.raises(
        ConfigError, match=r"max_length: \d+ tokens of the longest row and 1000 virtual tokens are over"
    ):
        train(config, console=_quiet())


def test_what_rows_lose_is_said(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = io.StringIO()
    rows = [*ENGLISH, {"instruction": "x" * 200, "input": "", "output": "o"}, {"instruction": "x", "output": ""}]
    train(tiny_config(bases["llama"], tmp_path, rows, max_length=80, max_steps=1), console=Console(file=output))
    assert (
        "warning: data: 1 rows cut at max_length 80, 1 of them lost: their prompt alone is that long"
        in output.getvalue()
    )
    assert "warning: data: 1 rows have an empty output" in output.getvalue()


def test_a_terminal_sees_a_bar(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120)
    train(tiny_config(bases["llama"], tmp_path, eval_data=tmp_path / "rows.jsonl", max_steps=2), console=console)
    assert "training" in output.getvalue()
    assert "time left" in output.getvalue()
    assert "2/2" in output.getvalue()
    assert "step 1/2  loss" not in output.getvalue()
