"""Offline: data, training, evaluation, export. Stands on `adapters`; never imports `server`.

    from training import TrainConfig, train

    result = train(TrainConfig(data=("rows.jsonl",), name="my-adapter", eval_fraction=0.1))

is what `hotprompt train` does, with the same keys. The names are looked up when they are asked for, since what they
need takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.config_reading import load_train_config
    from training.run import TrainResult, train

_HOMES = {
    "TrainConfig": "training.config",
    "TrainResult": "training.run",
    "load_train_config": "training.config_reading",
    "train": "training.run",
}
__all__ = ["TrainConfig", "TrainResult", "load_train_config", "train"]


def __getattr__(name: str) -> Any:
    """The public names, each from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
