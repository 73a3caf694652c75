"""Settings from YAML, `--set` and flags, and that every mistake is reported at once by its key."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from adapters.home import default_store
from training.config import TrainConfig
from training.config_reading import load_train_config
from training.errors import ConfigError, TrainingError
from training.gather import gather_rows
from training.methods import DEFAULT_INIT_TEXT

REQUIRED = {"data": "rows.jsonl", "name": "x"}


def test_defaults() -> None:
    config = load_train_config(None, flags=REQUIRED)
    assert config.base == "smollm2-135m-instruct"
    assert config.store == default_store()
    assert config.init_text == DEFAULT_INIT_TEXT
    assert config.max_steps is None


def test_flags_win_over_overrides_and_overrides_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: rows.jsonl\nname: file\nseed: 1\nlearning_rate: 5e-5\nmax_steps: 7\n")
    config = load_train_config(file, ["seed=2", "max_steps=8", "warmup_steps=0.1"], {"max_steps": 9, "base": None})
    assert (config.name, config.seed, config.max_steps) == ("file", 2, 9)
    assert config.learning_rate == 5e-5  # YAML reads it as a string
    assert config.warmup_steps == 0.1


def test_a_null_override_takes_a_setting_back() -> None:
    assert load_train_config(None, ["max_steps=null"], REQUIRED).max_steps is None


def test_an_override_may_hold_an_equals_sign_and_a_colon() -> None:
    config = load_train_config(None, ["prompt_tuning_init_text=a=b: c: d"], REQUIRED)
    assert config.init_text == "a=b: c: d"


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learnig_rate: 0.1\nmethod: qlora\nmax_steps: 0\nname: ../evil\n")
    with pytest.raises(ConfigError) as caught:
        load_train_config(file, ["oops", "seed=-1", "learning_rate=.nan"])
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 8
    assert "learnig_rate: no such key (did you mean learning_rate?)" in problems
    assert "method: 'qlora' is not supported (supported: 'prompt_tuning', 'p_tuning'" in problems
    assert "max_steps: should be greater than or equal to 1, is 0" in problems
    assert "name: '../evil' is not a legal adapter name" in problems
    assert "data: is required" in problems
    assert "--set oops: must be key=value" in problems
    assert "seed: " in problems
    assert "learning_rate: " in problems
    assert all(problem in str(caught.value) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["prompt_tuning_init_text="], "data: "),
        (["prompt_tuning_init_text=' '"], "prompt_tuning_init_text: must not be empty"),
        (
            ["prompt_tuning_init=random", "prompt_tuning_init_text=hello"],
            "prompt_tuning_init_text: is used by prompt_tuning_init 'text' only",
        ),
        (["num_virtual_tokens=1000000"], "num_virtual_tokens: should be less than or equal to 4096"),
        (["data_weights=[1, 2]"], "data_weights: has 2 numbers for 1 sources of data"),
        (["data=[]"], "data: "),
        (["eval_data=x.jsonl", "eval_fraction=0.1"], "eval_fraction: excludes eval_data"),
        (["eval_fraction=0.9"], "eval_fraction: should be less than or equal to 0.5"),
        (["data_format=xml"], "data_format: 'xml' is not supported"),
        (["dtype=float16"], "dtype: 'float16' is not supported"),
        (["per_device_train_batch_size=[1]"], "per_device_train_batch_size: "),
    ],
)
def test_illegal_values_name_their_key(overrides: list[str], problem: str) -> None:
    flags = {"name": "x"} if problem == "data: " else REQUIRED
    with pytest.raises(ConfigError, match=problem):
        load_train_config(None, overrides, flags)


def test_freeze_tuning_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(ConfigError) as caught:
        load_train_config(None, ["method=freeze"], REQUIRED)
    (problem,) = caught.value.problems
    assert problem.startswith("method: 'freeze' is not made: it trains whole layers of the base")
    assert "use lora, with target_modules naming" in problem


@pytest.mark.parametrize("content", ["- a list\n", "a: [1\n", b"\xff\xfe"])
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"^--config .*run\.yaml: [^\n]*$"):
        load_train_config(file)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^--config .*none\.yaml: cannot be read: No such file or directory$"):
        load_train_config(tmp_path / "none.yaml")


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("# nothing\n")
    assert load_train_config(file, flags=REQUIRED) == load_train_config(None, flags=REQUIRED)


def test_every_key_is_described() -> None:
    fields = TrainConfig.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_the_classic_recipe_is_a_config() -> None:
    config = load_train_config(Path(__file__).parents[2] / "examples" / "alpaca_zh_bloom.yaml")
    assert config.base == "Langboat/bloom-1b4-zh"
    assert config.init_text == "下面是一段人与机器人的对话。"
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (1, 8)
    assert (config.max_length, config.dtype, config.learning_rate) == (256, "float32", 5e-5)
    assert config.num_virtual_tokens is None


@pytest.mark.parametrize("name", ["library_mail", "shop_messages_zh"])
def test_the_worked_examples_are_configs_and_hold_out_a_quarter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    config = load_train_config(root / "examples" / "training" / f"{name}.yaml")
    rows = gather_rows(config, Console(file=io.StringIO()))
    assert (len(rows.train), len(rows.held_out or ())) == (45, 15)
    assert len({row.messages[-1]["content"] for row in rows.train}) == 4


def test_the_documentation_lists_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for name, field in TrainConfig.model_fields.items():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert str(field.description) in row, name
        if isinstance(field.default, str | int | float) and not isinstance(field.default, bool):
            assert f"`{field.default}`" in row, name
