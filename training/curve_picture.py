"""The loss curve of a run as a picture. Measures nothing."""

from collections.abc import Sequence
from pathlib import Path

from training.pictures import new_figure, write_figure
from training.trainer import LossPoint


def write_curve(
    paths: Sequence[Path], *, title: str, losses: Sequence[LossPoint], held_out: Sequence[LossPoint]
) -> None:
    """Draw training loss and, as dots, held-out loss by optimiser step; formats are told by the paths' ends.

    Raises TrainingError.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.plot([point.step for point in losses], [point.loss for point in losses], label="training")
    if held_out:
        axes.plot([point.step for point in held_out], [point.loss for point in held_out], "o--", label="held-out")
    axes.set_title(title)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss, nats per answer token")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    write_figure(figure, paths)
