"""The confusion matrices of a comparison as one picture. Measures nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.comparison import Comparison
from training.pictures import font_for, new_figure, write_figure

if TYPE_CHECKING:  # seconds to import, and an extra
    from matplotlib.axes import Axes

_INCHES_PER_LABEL = 0.45
_MIN_INCHES = 3.0
_MAX_INCHES = 16.0
_LABEL_CHARS = 24
_MOST_NUMBERED = 30
"""More labels than these get no numbers in the cells: nobody could read them."""


def write_confusion(comparison: Comparison, path: Path, *, base: str, adapter: str) -> None:
    """Draw what was expected against what was answered, of the base model (where it was asked) and of the adapter.

    Labels that no font here can show are numbered, in the order of the report. Raises TrainingError.
    """
    sides = [(base, comparison.base_confusion), (adapter, comparison.confusion)]
    drawn = [(title, counts) for title, counts in sides if counts is not None]
    size = min(max(_INCHES_PER_LABEL * len(comparison.labels) + 1.5, _MIN_INCHES), _MAX_INCHES)
    figure = new_figure(size * len(drawn) + 0.5, size)
    font = font_for(comparison.labels)
    names = [label[:_LABEL_CHARS] for label in comparison.labels]
    if font is None:
        names = [str(number) for number in range(1, len(names) + 1)]
    for axes, (title, counts) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _draw(axes, title, counts, names, font or "DejaVu Sans")
    write_figure(figure, [path])


def _draw(axes: "Axes", title: str, counts: Sequence[Sequence[int]], names: Sequence[str], font: str) -> None:
    shares = [[cell / max(1, sum(row)) for cell in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_title(title)
    axes.set_xlabel("answered")
    axes.set_ylabel("expected")
    axes.set_xticks(range(len(names) + 1), [*names, "(none)"], rotation=90, family=font)
    axes.set_yticks(range(len(names)), names, family=font)
    if len(names) > _MOST_NUMBERED:
        return
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                colour = "white" if shares[y][x] > 0.5 else "black"
                axes.text(x, y, str(count), ha="center", va="center", color=colour, fontsize=8)
