"""Names of the experiment trackers that a run can report to: transformers' own. Imports none of them."""

from typing import Literal

Tracker = Literal[
    "azure_ml",
    "clearml",
    "codecarbon",
    "comet_ml",
    "dagshub",
    "dvclive",
    "flyte",
    "kubeflow",
    "mlflow",
    "neptune",
    "swanlab",
    "tensorboard",
    "trackio",
    "wandb",
]
NO_TRACKER = "none"

MODULES: dict[Tracker, str] = {
    "azure_ml": "azureml",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""What a tracker is not without."""
_PACKAGES: dict[Tracker, str] = {
    "azure_ml": "azureml-mlflow azureml-core",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "flyte": "flytekit",
    "tensorboard": "'hotprompt[train]'",
}


def as_trackers(value: object) -> object:
    """`none` is no tracker, and several may be one text with commas. Raises ValueError for `none` beside others."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    if NO_TRACKER not in names:
        return tuple(dict.fromkeys(map(str, names)))
    if len(names) > 1:
        raise ValueError(f"{NO_TRACKER!r} stands alone")
    return ()


def install_command(name: Tracker) -> str:
    """What installs a tracker's client."""
    return f"pip install {_PACKAGES.get(name, name)}"
