"""ROUGE-L and chrF of free answers, by rouge-score and sacrebleu. Knows no model."""

import re
from collections.abc import Sequence

from training.errors import TrainingError

_TOKEN = re.compile(r"[a-z0-9]+|[^\W\d_a-z]", re.IGNORECASE)


class _Words:
    """Words of Latin letters and digits, and every letter of other scripts by itself: rouge-score drops the latter."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())


def rouge_l(expected: Sequence[str], answers: Sequence[str]) -> list[float]:
    """ROUGE-L F1 of each answer, 0 to 1 (Lin 2004). Raises TrainingError where rouge-score is not installed."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise TrainingError("free text is measured with the extra 'train': pip install 'hotprompt[train]'") from None
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return [
        float(scorer.score(target, answer)["rougeL"].fmeasure) for target, answer in zip(expected, answers, strict=True)
    ]


def chrf(expected: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Sentence chrF2 of each answer, 0 to 100 (Popović 2015). Raises TrainingError where sacrebleu is not installed."""
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise TrainingError("free text is measured with the extra 'train': pip install 'hotprompt[train]'") from None
    metric = CHRF()
    return [
        float(metric.sentence_score(answer, [target]).score) for target, answer in zip(expected, answers, strict=True)
    ]
