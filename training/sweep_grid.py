"""What a sweep tries: the candidates of a grid, each a whole configuration. Trains nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from training.config import TrainConfig
from training.config_reading import checked
from training.errors import ConfigError

MAX_CANDIDATES = 64
_RATES = (1 / 3, 1.0, 3.0)
"""Around the run's own learning rate."""
_INITS: Mapping[str, tuple[str, ...]] = {
    "prompt_tuning": ("text", "vocab"),
    "p_tuning": ("text", "random"),
    "multitask_prompt_tuning": ("text", "random"),
    "prefix_tuning": ("text", "random"),
}
_INIT_KEYS: Mapping[str, str] = {
    "prompt_tuning": "prompt_tuning_init",
    "p_tuning": "prompt_tuning_init",
    "multitask_prompt_tuning": "prompt_tuning_init",
    "prefix_tuning": "prefix_tuning_init",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is tried, by key, and the configuration of the full run with it; that has the sweep's grid no more."""

    settings: Mapping[str, float | str]
    config: TrainConfig

    @property
    def label(self) -> str:
        return ", ".join(f"{key} {as_cell(value)}" for key, value in self.settings.items())


def as_cell(value: float | str) -> str:
    """A setting as people read it."""
    return f"{value:.3g}" if isinstance(value, float) else value


def candidates_of(config: TrainConfig) -> list[Candidate]:
    """Every combination of the grid's values. Raises ConfigError with every candidate that is no legal run."""
    assert config.sweep is not None
    if config.eval_data is None and config.eval_fraction is None:
        raise ConfigError(["sweep: needs held-out rows to choose by (eval_data or eval_fraction)"])
    grid: dict[str, Sequence[Any]] = (
        {str(key): values for key, values in config.sweep.items()} if config.sweep else _default_grid(config)
    )
    if "init" in grid and (config.method not in _INIT_KEYS or config.init_adapter is not None):
        what = "init_adapter" if config.init_adapter is not None else f"method {config.method}"
        raise ConfigError([f"sweep: init means nothing with {what}"])
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    if len(combinations) > MAX_CANDIDATES:
        raise ConfigError([f"sweep: {len(combinations):,} candidates are over the limit of {MAX_CANDIDATES}"])
    return [_candidate(config, settings) for settings in combinations]


def _default_grid(config: TrainConfig) -> dict[str, Sequence[Any]]:
    grid: dict[str, Sequence[Any]] = {"learning_rate": [rate * config.learning_rate for rate in _RATES]}
    if config.method in _INITS and config.init_adapter is None:
        grid["init"] = _INITS[config.method]
    return grid


def _candidate(config: TrainConfig, settings: Mapping[str, Any]) -> Candidate:
    known = config.model_dump(exclude=config.keys_without_meaning | {"sweep"}, exclude_none=True)
    init_key = _INIT_KEYS.get(config.method, "")
    chosen = {init_key if key == "init" else key: value for key, value in settings.items()}
    if chosen.get(init_key, "text") != "text":
        known.pop("prompt_tuning_init_text", None)
    try:
        made = checked(TrainConfig, known | chosen)
    except ConfigError as error:
        raise ConfigError([f"sweep: {problem}" for problem in error.problems]) from None
    used = {key: getattr(made, init_key if key == "init" else key) for key in settings}
    return Candidate(used, made)
