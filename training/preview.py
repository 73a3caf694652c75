"""Shows rows exactly as the model will see them, and which tokens are learnt. Trains nothing."""

from collections.abc import Iterator
from itertools import groupby

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from training.config import TrainConfig
from training.examples import IGNORED_LABEL, Example
from training.model import num_virtual_tokens
from training.prepare import prepare_run
from training.progress import say

LEARNT_STYLE, READ_STYLE = "bold green", "dim"
OPEN, CLOSE = "⟦", "⟧"
"""Around what is learnt: colour is lost in a pipe."""


def print_preview(config: TrainConfig, console: Console, *, count: int) -> None:
    """Print the first `count` rows of each side in tokens turned back into text.

    Raises what `prepare_run` raises.
    """
    run = prepare_run(config, console)
    virtual = num_virtual_tokens(run.base, config)
    for title, examples in (("data", run.train.examples), ("held-out", run.held_out or ())):
        for number, example in enumerate(examples[:count], start=1):
            learnt = sum(label != IGNORED_LABEL for label in example.labels)
            heading = f"{title} {number}: {virtual} virtual and {example.length} real tokens, {learnt} learnt"
            console.print(Text(heading, style="bold"), soft_wrap=True)
            console.print(preview_text(example, run.base.tokenizer), soft_wrap=True)
            console.print()
    say(console, f"learnt is what stands between {OPEN} and {CLOSE}")


def preview_text(example: Example, tokenizer: PreTrainedTokenizerBase) -> Text:
    """The row's text, what is learnt of it in another style and between brackets."""
    text = Text()
    for is_learnt, run in groupby(_pieces(example), key=lambda piece: piece[0]):
        decoded = str(tokenizer.decode([id_ for _, id_ in run], skip_special_tokens=False))
        if is_learnt:
            text.append(OPEN + decoded + CLOSE, style=LEARNT_STYLE)
        else:
            text.append(decoded, style=READ_STYLE)
    return text


def _pieces(example: Example) -> Iterator[tuple[bool, int]]:
    """Every token with whether it is learnt. Where the label is another than the token, the label goes first: the
    model is to say it there, and reads the token."""
    features = example.features()
    for id_, label in zip(features["input_ids"], features["labels"], strict=True):
        if label != IGNORED_LABEL:
            yield True, label
        if label != id_:
            yield False, id_
