"""The model card of a trained adapter, as Markdown. Writes no file."""

import json
from collections.abc import Iterator, Sequence

from adapters.manifest import BaseIdentity, EvaluationFacts, TrainingFacts
from training.measures import number, title_of
from training.trainer import LossPoint

_MAX_CURVE_POINTS = 20
_BAR_WIDTH = 30


def model_card(name: str, base: BaseIdentity, facts: TrainingFacts, losses: Sequence[LossPoint]) -> str:
    """Data, metrics, settings and loss curve of one adapter."""
    sections = [
        _front_matter(base, facts),
        f"# {name}\n\nAn adapter ({facts.method}) for the base model `{base.name}`, trained with hotprompt. "
        "It loads in hotprompt and in PEFT (`PeftModel.from_pretrained`).",
        _data_section(facts),
        _result_section(facts),
        _curve_section(losses),
        "## Settings\n\n" + _table(("key", "value"), [(key, _cell(value)) for key, value in facts.settings.items()]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(base: BaseIdentity, facts: TrainingFacts) -> str:
    licence = facts.settings.get("license")
    line = f"license: {json.dumps(licence, ensure_ascii=False)}\n" if licence else ""
    tag = facts.method.replace("_", "-")
    return f"---\nbase_model: {base.name}\n{line}library_name: peft\ntags: [{tag}, hotprompt]\n---"


def _data_section(facts: TrainingFacts) -> str:
    licence = facts.settings.get("license")
    said = f" Licence: {_cell(licence)}." if licence else " No licence was given."
    return f"## Data\n\n`{facts.data}`: {facts.rows:,} rows, sha256 of the rows `{facts.data_digest}`.{said}"


def _result_section(facts: TrainingFacts) -> str:
    final_loss = "not logged" if facts.final_loss is None else f"{facts.final_loss:.4f}"
    rows = [
        ("optimiser steps", f"{facts.steps:,}" + (" (interrupted)" if facts.interrupted else "")),
        ("final training loss", final_loss),
        ("trainable parameters", f"{facts.trainable_parameters:,}"),
        ("tokens seen, padding not counted", f"{facts.tokens:,}"),
        ("tokens per second", f"{facts.tokens_per_second:,.0f}"),
        ("seconds", f"{facts.seconds:,.0f}"),
    ]
    section = "## Result\n\n" + _table(("what", "value"), rows)
    return section if facts.evaluation is None else section + "\n\n" + _evaluation_table(facts.evaluation)


def _evaluation_table(evaluation: EvaluationFacts) -> str:
    header = (f"on {evaluation.rows:,} held-out rows", "base model", "with this adapter")
    if not evaluation.scores:
        plain = [
            ("loss, nats per answer token", f"{evaluation.loss_before:.4f}", f"{evaluation.loss_after:.4f}"),
            ("exact match", f"{evaluation.exact_match_before:.1%}", f"{evaluation.exact_match_after:.1%}"),
        ]
        return _table(header, plain)
    rows = [
        (
            title_of(score.name),
            number(score.name, score.before),
            number(score.name, score.after),
            f"{number(score.name, score.difference_low, signed=True)} to "
            f"{number(score.name, score.difference_high, signed=True)}",
        )
        for score in evaluation.scores
    ]
    return _table((*header, "difference, 95 % of resampled rows"), rows)


def _curve_section(losses: Sequence[LossPoint]) -> str:
    if not losses:
        return ""
    highest = max(point.loss for point in losses)
    rows = [
        (
            f"{point.step:,}",
            f"{point.loss:.4f}",
            "█" * max(1, round(_BAR_WIDTH * point.loss / highest)) if highest else "",
        )
        for point in _thinned(losses)
    ]
    return "## Loss curve\n\n" + _table(("step", "training loss", ""), rows)


def _thinned(losses: Sequence[LossPoint]) -> Iterator[LossPoint]:
    """At most so many points, evenly spaced, the last one among them."""
    stride = -(-len(losses) // _MAX_CURVE_POINTS)
    yield from reversed(losses[::-1][::stride])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
