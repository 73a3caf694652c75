"""What a request has used, and token probabilities, on the wire. Knows no route."""

from server.protocol.base import ResponseBody


class PromptTokensDetails(ResponseBody):
    cached_tokens: int


class UsageInfo(ResponseBody):
    """Virtual tokens of an adapter are in none of the counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(ResponseBody):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(ResponseBody):
    """`bytes` are exact where `token` cannot be: a token may end in the middle of a character."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(ResponseBody):
    content: list[TokenLogprob]
    refusal: None = None
