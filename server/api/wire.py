"""The text floor's results in wire types, for whole answers and chunks alike. Knows no route."""

from collections.abc import Iterable, Sequence

from server.engine.outputs import FinishReason
from server.protocol.chat import FinishReasonName
from server.protocol.usage import ChoiceLogprobs, PromptTokensDetails, TokenLogprob, TopLogprob, UsageInfo
from server.text.deltas import TokenChoice, TokenText, Usage


def usage_info(usage: Usage) -> UsageInfo:
    """The usage of one request."""
    return UsageInfo(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )


def finish_name(reason: FinishReason, *, has_calls: bool) -> FinishReasonName:
    """Why an answer ended; one that ended by itself with tool calls waits for their results."""
    return "tool_calls" if has_calls and reason is FinishReason.STOP else reason.value


def choice_logprobs(tokens: Iterable[TokenChoice]) -> ChoiceLogprobs:
    """Log-probabilities of an answer's tokens, or of a piece of it."""
    return ChoiceLogprobs(content=[_token(choice.chosen, choice.likeliest) for choice in tokens])


def _token(chosen: TokenText, likeliest: Sequence[TokenText]) -> TokenLogprob:
    return TokenLogprob(
        token=chosen.text,
        logprob=chosen.logprob,
        bytes=list(chosen.content),
        top_logprobs=[
            TopLogprob(token=token.text, logprob=token.logprob, bytes=list(token.content)) for token in likeliest
        ],
    )
