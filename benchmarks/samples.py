"""Sample: what one arm of a measurement gave, as figures and as raw values. Knows no scenario and no server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.load import Answer, Load
from benchmarks.percentiles import percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Figures of one arm at one number of clients, and the raw values behind them; milliseconds, seconds, MiB.

    It is void when a request failed: then no figure of it counts.
    """

    arm: str
    clients: int
    values: Mapping[str, float]
    raw: Mapping[str, Sequence[float]]
    failures: tuple[str, ...] = ()

    @property
    def is_void(self) -> bool:
        return bool(self.failures)


def sample_of_load(arm: str, clients: int, load: Load) -> Sample:
    """Tokens per second by the server's own counts, and the percentiles of a closed loop."""
    sample = sample_of_answers(arm, clients, load.answers, failures=load.failures)
    tokens = sum(answer.usage.completion_tokens for answer in load.answers)
    values = {"tokens_per_second": tokens / load.seconds, "seconds": load.seconds, **sample.values}
    return Sample(arm=arm, clients=clients, values=values, raw=sample.raw, failures=sample.failures)


def sample_of_answers(arm: str, clients: int, answers: Sequence[Answer], *, failures: tuple[str, ...] = ()) -> Sample:
    """Percentiles and counts of answers that need not have run beside each other."""
    ttft = [answer.ttft * 1e3 for answer in answers]
    gaps = [gap * 1e3 for answer in answers for gap in answer.gaps]
    values = {
        **percentiles("ttft", ttft, unit="ms"),
        **percentiles("inter_token", gaps, unit="ms"),
        "requests": float(len(answers)),
        "prompt_tokens": float(sum(answer.usage.prompt_tokens for answer in answers)),
        "completion_tokens": float(sum(answer.usage.completion_tokens for answer in answers)),
        "cached_tokens": float(sum(answer.usage.cached_tokens for answer in answers)),
        "answers_without_text": float(sum(not answer.pieces for answer in answers)),
    }
    raw = {"ttft_ms": ttft, "answer_seconds": [answer.seconds for answer in answers], "inter_token_ms": gaps}
    return Sample(arm=arm, clients=clients, values=values, raw=raw, failures=failures)


def sample_of_gaps(arm: str, clients: int, gaps: Sequence[float], *, failures: tuple[str, ...]) -> Sample:
    """Percentiles of the seconds between pieces of streams that ran while something else was done."""
    milliseconds = [gap * 1e3 for gap in gaps]
    values = {**percentiles("inter_token", milliseconds, unit="ms"), "gaps": float(len(gaps))}
    return Sample(arm=arm, clients=clients, values=values, raw={"inter_token_ms": milliseconds}, failures=failures)
