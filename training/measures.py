"""What measures are called, and how their values are written. Measures nothing."""

_TITLES = {
    "loss": "loss, nats per answer token",
    "perplexity": "perplexity",
    "exact_match": "exact match",
    "label_accuracy": "label accuracy",
    "macro_f1": "macro-F1",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
}
_SHARES = frozenset({"exact_match", "label_accuracy"})


def title_of(name: str) -> str:
    """What people call a measure."""
    return _TITLES[name]


def number(name: str, value: float, *, signed: bool = False) -> str:
    """A measure's value as it is written."""
    sign = "+" if signed else ""
    if name in _SHARES:
        return f"{value:{sign}.1%}"
    digits = {"chrf": ".1f", "perplexity": ".4g", "loss": ".4f"}.get(name, ".3f")
    return f"{value:{sign}{digits}}"
