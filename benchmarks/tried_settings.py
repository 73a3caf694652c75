"""Which values of a method's settings are tried where nobody says. Trains nothing."""

from collections.abc import Mapping, Sequence

from training.errors import ConfigError

GRIDS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "prompt_tuning": {"learning_rate": ("0.01", "0.02", "0.04")},
    "prefix_tuning": {"learning_rate": ("0.003", "0.008", "0.015", "0.03")},
    "lora": {"learning_rate": ("0.0005", "0.001", "0.002", "0.004")},
    "ia3": {"learning_rate": ("0.01", "0.03")},
    "p_tuning": {"learning_rate": ("0.0001", "0.0003", "0.001")},
    "multitask_prompt_tuning": {"learning_rate": ("0.01", "0.03", "0.06")},
}


def read_tries(method: str, lines: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """`key=value,value` lines as values by key; the method's own grid where there are none. Raises ConfigError."""
    if not lines:
        if method not in GRIDS:
            raise ConfigError([f"--method {method}: must be one of {', '.join(GRIDS)}"])
        return GRIDS[method]
    tries: dict[str, Sequence[str]] = {}
    for line in lines:
        key, equals, values = line.partition("=")
        if not equals or not values:
            raise ConfigError([f"--try {line}: must be key=value,value"])
        tries[key.strip()] = [value.strip() for value in values.split(",")]
    return tries
