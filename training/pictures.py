"""Pictures by matplotlib: which font shows a text, and writing one figure. Knows no numbers of a run."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import TrainingError

if TYPE_CHECKING:  # seconds to import, and an extra
    from matplotlib.figure import Figure

_WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "PingFang SC")
_PLAIN_FONT = "DejaVu Sans"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, sizes in inches. Raises TrainingError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TrainingError("pictures are drawn with the extra 'train': pip install 'hotprompt[train]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def write_figure(figure: "Figure", paths: Iterable[Path]) -> None:
    """Write a figure in the format that each path's end says. Raises TrainingError."""
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=110)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path}: cannot be written: {error}") from error


def font_for(texts: Sequence[str]) -> str | None:
    """The first font here that has every character of the texts; None where none has."""
    from matplotlib.font_manager import findfont, get_font

    characters = {ord(character) for text in texts for character in text}
    for name in (_PLAIN_FONT, *_WIDE_FONTS):
        try:
            font = get_font(findfont(name, fallback_to_default=False))
        except ValueError:  # not on this machine
            continue
        if all(font.get_char_index(character) for character in characters):
            return name
    return None
