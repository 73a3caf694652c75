"""Small alpaca rows, and configurations for runs on tiny base models."""

import json
from collections.abc import Sequence
from pathlib import Path

from training.config import TrainConfig
from training.config_reading import load_train_config

ENGLISH = [
    {"instruction": f"Add {a} and {b}.", "input": "", "output": str(a + b)}
    if b % 2
    else {"instruction": "Say the colour.", "input": f"{'very ' * b}{colour}", "output": colour.upper()}
    for a, colour in enumerate(["red", "green", "blue", "yellow", "violet", "orange"])
    for b in range(8)
]
CHINESE = [
    {"instruction": "保持健康的三个提示。", "input": "", "output": "均衡饮食，适量运动，充足睡眠。"},
    {"instruction": "把下面的词翻译成英语。", "input": "苹果", "output": "apple"},
    {"instruction": "  列出四季。 ", "input": "", "output": "春夏秋冬"},
    {"instruction": "判断情感。", "input": "这部电影很好看\n", "output": "正面"},
]


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_config(base: Path, tmp_path: Path, rows: Sequence[object] = ENGLISH, **settings: object) -> TrainConfig:
    """A few steps on a tiny base; the store is `tmp_path / "store"`."""
    defaults: dict[str, object] = {
        "base": str(base),
        "data": write_jsonl(tmp_path / "rows.jsonl", rows),
        "name": "tiny",
        "store": tmp_path / "store",
        "run_dir": tmp_path / "run",
        "max_steps": 3,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "prompt_tuning_init_text": "Answer:",
        "lr_scheduler_type": "linear",  # the reference recipe's
        "warmup_steps": 0,
        "dtype": "float32",
        "device": "cpu",
        "data_cache": False,
    }
    return load_train_config(None, [], defaults | settings)
