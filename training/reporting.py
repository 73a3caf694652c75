"""What a run reports of its measurements: printed, written and drawn. Measures and trains nothing."""

from collections.abc import Sequence

from rich.console import Console

from adapters.manifest import EvaluationFacts
from training.comparison import Comparison, compare_rows, score_facts
from training.comparison_table import print_comparison
from training.config import TrainConfig
from training.confusion_picture import write_confusion
from training.curve_picture import write_curve
from training.errors import TrainingError
from training.evaluate import Evaluation
from training.progress import say
from training.run_directory import RunDirectory
from training.tracking import Trackers
from training.trainer import LossPoint


def compared(
    before: Evaluation | None, after: Evaluation | None, config: TrainConfig, *, base_name: str, console: Console
) -> Comparison | None:
    """Every measure of the held-out answers, printed; a trained adapter is not lost where one cannot be taken."""
    if before is None or after is None:
        return None
    try:
        comparison = compare_rows(before.rows, after.rows, task=config.eval_task, seed=config.seed)
    except TrainingError as error:
        say(console, f"warning: {error}")
        return None
    print_comparison(console, comparison, adapter=config.name, base=base_name)
    return comparison


def note(directory: RunDirectory, trackers: Trackers, step: int, measured: Evaluation | None) -> None:
    """Write a measurement into the run's metrics, and tell the trackers. Raises TrainingError."""
    if measured is not None:
        directory.note({"step": step, "held_out_loss": measured.loss, "held_out_exact_match": measured.exact_match})
        trackers.note(step, {"loss": measured.loss, "exact_match": measured.exact_match})


def note_scores(trackers: Trackers, step: int, facts: EvaluationFacts | None) -> None:
    """Tell the trackers every measure that is not the loss or the exact match: those they have."""
    if facts is not None:
        others = [score for score in facts.scores if score.name not in ("loss", "exact_match")]
        trackers.note(step, {score.name: score.after for score in others})


def draw(
    directory: RunDirectory,
    comparison: Comparison | None,
    *,
    title: str,
    losses: Sequence[LossPoint],
    console: Console,
) -> None:
    """Write the report and the pictures of a run; a trained adapter is not lost where one cannot be written."""
    try:
        if comparison is not None:
            directory.write_evaluation(comparison.to_json())
        if losses:
            points = [LossPoint(step, loss) for step, loss in directory.held_out_losses().items()]
            write_curve(directory.curves, title=title, losses=losses, held_out=points)
        if comparison is not None and comparison.confusion is not None:
            write_confusion(comparison, directory.confusion, base="base model", adapter=title)
    except TrainingError as error:
        say(console, f"warning: {error}")
    say(console, f"metrics and pictures of the run: {directory.path}")


def evaluation_facts(
    before: Evaluation | None, after: Evaluation | None, comparison: Comparison | None
) -> EvaluationFacts | None:
    """Both measurements as the manifest records them."""
    if before is None or after is None:
        return None
    return EvaluationFacts(
        rows=len(after.rows),
        loss_before=before.loss,
        loss_after=after.loss,
        exact_match_before=before.exact_match,
        exact_match_after=after.exact_match,
        scores=() if comparison is None else score_facts(comparison),
    )
