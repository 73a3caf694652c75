"""TrainConfig: every setting of a training run, and what each may be. Reads no file, loads no model and no data."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from adapters.embedded_base import EMBEDDED_BASE_NAME
from adapters.home import default_store
from adapters.naming import NAME_PATTERN, NAME_RULE
from adapters.peft_config import MAX_RANK, MAX_TASKS, MAX_VIRTUAL_TOKENS
from training.methods import DEFAULT_INIT_TEXT, DEFAULT_LEARNING_RATES, METHODS_OF_KEYS, REFUSED_METHODS, Method
from training.row_forms import DataFormat
from training.trackers import MODULES, Tracker, as_trackers

Task = Literal["auto", "classification", "text"]
"""What held-out answers are measured as."""

_SECONDS_PER_MINUTE = 60


def _as_list(value: object) -> object:
    """One source may stand alone, as text or as a path."""
    values = value if isinstance(value, list | tuple) else [value]
    return [str(item) if isinstance(item, Path) else item for item in values]


Sources = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1, max_length=64),
]
"""Where rows come from: one source or several."""


def _as_grid(value: object) -> object:
    """`default` is an empty grid; `key=value,value` lines, as the command line has them, become a mapping."""
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, list | tuple):
        return value
    grid: dict[str, list[str]] = {}
    for line in lines:
        key, equals, values = str(line).partition("=")
        if line == "default" and len(lines) == 1:
            return {}
        if not equals:
            raise ValueError(f"{line!r} must be 'default' or key=value,value")
        grid[key.strip()] = [each.strip() for each in values.split(",")]
    return grid


SweepKey = Literal["learning_rate", "init", "weight_decay"]
Grid = Annotated[
    dict[SweepKey, Annotated[tuple[float | str, ...], Field(min_length=1, max_length=16)]], BeforeValidator(_as_grid)
]
"""Values to try of some keys; where there is none, the method's default grid."""


class TrainConfig(BaseModel):
    """Settings of one run. A key that transformers' TrainingArguments has too is named and meant as there."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    base: str = Field(default=EMBEDDED_BASE_NAME, min_length=1)
    """base model: the embedded one's name, a directory, or a hub id"""
    data: Sources
    """rows: JSON, JSONL, CSV, TSV or Parquet files, directories written by datasets' save_to_disk, or hub ids"""
    data_weights: tuple[Annotated[float, Field(gt=0, le=1000)], ...] | None = None
    """how often the rows of each source are seen in one epoch; by default once"""
    data_format: DataFormat = "auto"
    """form of the rows; auto tells it by the columns"""
    duplicates: Literal["keep", "drop"] = "keep"
    """what becomes of rows that are equal to an earlier one"""
    eval_data: Sources | None = None
    """held-out rows in the same forms, measured before and after training"""
    eval_fraction: float | None = Field(default=None, gt=0, le=0.5)
    """share of the rows that is held out, where there is no eval_data; equal questions stay together"""
    name: str
    """name that the adapter is published under"""
    store: Path = Field(default_factory=default_store)
    """directory of published adapters"""
    publish: str | None = Field(default=None, min_length=1, max_length=4096)
    """also register the adapter there: another store's directory, or a running server's URL"""
    license: str | None = Field(default=None, min_length=1, max_length=256)
    """licence of the adapter and its data, for the model card, as apache-2.0"""
    run_dir: Path | None = None
    """directory of the run's settings, metrics and pictures; by default a new one under runs in HOTPROMPT_HOME"""

    method: Method = "prompt_tuning"
    """kind of adapter: prompt_tuning, p_tuning, prefix_tuning, multitask_prompt_tuning, lora or ia3"""
    prompt_tuning_init: Literal["text", "vocab", "labels", "random"] = "text"
    """what virtual tokens start as: the embeddings of a text, of random tokens, of the commonest answers, or random"""
    prefix_tuning_init: Literal["text", "zero", "random"] = "text"
    """what a prefix starts as: the keys and values that the base has for a text, zeros, or random numbers"""
    prompt_tuning_init_text: str | None = None
    """the text to start from"""
    init_adapter: str | None = Field(default=None, min_length=1)
    """adapter to continue from instead: a name in the store, or a directory"""
    num_tasks: int = Field(default=1, ge=1, le=MAX_TASKS)
    """tasks that a multitask prompt has room for"""
    task_id: int = Field(default=0, ge=0)
    """the task of this run's rows, counted from 0"""
    encoder_hidden_size: int | None = Field(default=None, ge=1, le=1 << 16)
    """width of P-tuning's encoder; by default that of the base"""
    lora_r: int = Field(default=8, ge=1, le=MAX_RANK)
    """rank of LoRA's factors"""
    lora_alpha: int = Field(default=16, ge=1, le=1_000_000)
    """LoRA's deltas are scaled by this over the rank"""
    target_modules: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=256)
    """names of the modules that LoRA changes; by default all linear ones but the output layer"""
    num_virtual_tokens: int | None = Field(default=None, ge=1, le=MAX_VIRTUAL_TOKENS)
    """length of the soft prompt; by default that of the text in tokens"""

    chat_format: Literal["auto", "model", "human_assistant"] = "auto"
    """auto is the base model's own chat template, or Human/Assistant where it has none"""
    system_prompt: str | None = Field(default=None, min_length=1)
    """stands before every conversation, in training and in serving"""
    max_length: int = Field(default=512, ge=2)
    """prompt and answer are cut here; in tokens, virtual tokens not counted"""

    data_cache: bool = True
    """rows in tokens are kept in HOTPROMPT_HOME, and read from there by the next run that has the same"""

    per_device_train_batch_size: int = Field(default=8, ge=1)
    """rows of one batch"""
    packing: bool = True
    """rows of a batch without padding, and what they begin with in common once; the gradient is the same"""
    tokens_per_pack: int | None = Field(default=None, ge=1)
    """most tokens computed at a time; fewer take less memory. By default 384 on a CPU, 8,192 on CUDA"""
    gradient_checkpointing: bool = False
    """layers are computed again in the backward pass and keep nothing else: less memory, slower, equal gradients"""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """batches of one optimiser step"""
    num_train_epochs: float = Field(default=3.0, gt=0)
    """passes over the data"""
    max_steps: int | None = Field(default=None, ge=1)
    """optimiser steps; overrides num_train_epochs"""
    max_minutes: float | None = Field(default=None, gt=0, le=100_000)
    """longest time of training, measurements on the way counted; the learning rate goes through its course in it"""
    learning_rate: float = Field(
        default_factory=lambda values: DEFAULT_LEARNING_RATES[values.get("method", "prompt_tuning")], gt=0
    )
    """highest learning rate; its default goes by the method"""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"] = (
        "cosine"
    )
    """course of the learning rate after the warm-up"""
    warmup_steps: float = Field(default=0.06, ge=0)
    """optimiser steps of rising learning rate; below 1, a share of all steps"""
    weight_decay: float = Field(default=0.0, ge=0)
    """weight decay of AdamW"""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """longer gradients are shortened to this norm; 0 leaves them alone"""
    optim: Literal["adamw_torch_fused", "adamw_torch", "adafactor", "sgd"] = "adamw_torch_fused"
    """optimiser"""
    train_sampling_strategy: Literal["random", "group_by_length", "sequential"] = "random"
    """order of the rows; group_by_length saves padding, and spoils short runs where the answer goes with the length"""
    seed: int = Field(default=42, ge=0, lt=1 << 32)
    """decides the order of the rows and random virtual tokens"""
    logging_steps: int = Field(default=10, ge=1)
    """optimiser steps between two reported losses"""
    report_to: Annotated[tuple[Tracker, ...], BeforeValidator(as_trackers), Field(max_length=len(MODULES))] = ()
    """experiment trackers that are told what the run measures, as tensorboard or mlflow,wandb; none is none"""

    sweep: Grid | None = None
    """values of learning_rate, init and weight_decay to try in short runs before this one; {} is the default grid"""
    sweep_steps: int | None = Field(default=None, ge=2)
    """optimiser steps of a short run; by default a fifth of the run, 10 to 60"""
    sweep_halving: bool = True
    """after half of them, the worse half of the candidates that are trained together is dropped"""

    eval_task: Task = "auto"
    """what held-out answers are measured as: labels or free text; auto takes few, short, repeated ones for labels"""
    keep_best: bool = True
    """with held-out rows, their loss is measured on the way, and the adapter with the lowest is published"""
    eval_steps: int | None = Field(default=None, ge=1)
    """optimiser steps between two such measurements; by default a tenth of the run"""
    early_stopping_patience: int = Field(default=4, ge=0)
    """so many measurements in a row without a lower loss end the training; 0 never does"""
    checkpoint_dir: Path | None = None
    """directory for checkpoints, from which the same command goes on after an interruption; none without it"""
    save_steps: int = Field(default=50, ge=1)
    """optimiser steps between two checkpoints"""

    per_device_eval_batch_size: int = Field(default=16, ge=1)
    """rows of one batch of the evaluation"""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """longest answer of the evaluation, in tokens; by default a little more than the longest expected one"""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """of the base model; auto is bfloat16 where the device computes in it. The soft prompt is always float32"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is CUDA where there is one"""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if NAME_PATTERN.fullmatch(name) is None:
            raise ValueError(f"{name[:80]!r} is not a legal adapter name ({NAME_RULE})")
        return name

    @field_validator("method", mode="before")
    @classmethod
    def _refuse_method(cls, method: object) -> object:
        if isinstance(method, str) and method in REFUSED_METHODS:
            raise ValueError(f"{method!r} {REFUSED_METHODS[method]}")
        return method

    @field_validator("prompt_tuning_init_text")
    @classmethod
    def _check_init_text(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("must not be empty")
        key = "prefix_tuning_init" if info.data.get("method") == "prefix_tuning" else "prompt_tuning_init"
        if text is not None and info.data.get(key, "text") != "text":
            raise ValueError(f"is used by {key} 'text' only")
        return text

    @field_validator("data_weights")
    @classmethod
    def _check_weights(cls, weights: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        sources = info.data.get("data")
        if weights is not None and sources is not None and len(weights) != len(sources):
            raise ValueError(f"has {len(weights)} numbers for {len(sources)} sources of data")
        return weights

    @field_validator("checkpoint_dir")
    @classmethod
    def _check_checkpoints(cls, directory: Path | None, info: ValidationInfo) -> Path | None:
        if directory is not None and info.data.get("max_minutes") is not None:
            raise ValueError("excludes max_minutes: a run that goes on has another clock")
        return directory

    @field_validator("eval_fraction")
    @classmethod
    def _check_fraction(cls, fraction: float | None, info: ValidationInfo) -> float | None:
        if fraction is not None and info.data.get("eval_data") is not None:
            raise ValueError("excludes eval_data")
        return fraction

    @property
    def weights(self) -> tuple[float, ...]:
        """One weight for each source of data."""
        return self.data_weights or (1.0,) * len(self.data)

    @field_validator(*METHODS_OF_KEYS)
    @classmethod
    def _check_method(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        method = info.data.get("method")
        if method is not None and value is not None and method not in METHODS_OF_KEYS[info.field_name]:
            raise ValueError(f"means nothing to method {method}")
        return value

    @field_validator("prompt_tuning_init")
    @classmethod
    def _check_init(cls, init: str, info: ValidationInfo) -> str:
        method = info.data.get("method")
        if method in ("p_tuning", "multitask_prompt_tuning") and init not in ("text", "random"):
            raise ValueError(f"must be 'text' or 'random' with method {method}, is {init!r}")
        return init

    @field_validator("task_id")
    @classmethod
    def _check_task(cls, task_id: int, info: ValidationInfo) -> int:
        if task_id >= info.data.get("num_tasks", task_id + 1):
            raise ValueError(f"{task_id} is not below num_tasks {info.data['num_tasks']}")
        return task_id

    @property
    def max_seconds(self) -> float | None:
        """Longest time of training."""
        return None if self.max_minutes is None else self.max_minutes * _SECONDS_PER_MINUTE

    @property
    def starts_from_text(self) -> bool:
        """Whether the adapter starts as a text."""
        inits = {
            "prompt_tuning": self.prompt_tuning_init,
            "p_tuning": self.prompt_tuning_init,
            "multitask_prompt_tuning": self.prompt_tuning_init,
            "prefix_tuning": self.prefix_tuning_init,
        }
        return self.init_adapter is None and inits.get(self.method) == "text"

    @property
    def keys_without_meaning(self) -> set[str]:
        """Keys that say nothing about this run's method."""
        return {key for key, methods in METHODS_OF_KEYS.items() if self.method not in methods}

    @property
    def init_text(self) -> str:
        """The text that an adapter which `starts_from_text` starts from."""
        return self.prompt_tuning_init_text or DEFAULT_INIT_TEXT
