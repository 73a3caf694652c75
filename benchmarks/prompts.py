"""Prompts of a wanted length, made of common words. Knows no server; whoever draws the words chooses the seed."""

from collections.abc import Callable
from random import Random

_COMMON_WORDS = """
    apple river stone garden window paper bridge morning winter summer letter market road forest mountain ocean bird
    horse table chair kitchen bread water fire light night cloud rain snow wind tree leaf flower field farm village city
    street house door wall roof floor room lamp clock book page story song dance music color picture camera film train
    ship plane wheel engine machine metal gold silver copper glass wood cotton silk coat shoe hand foot head heart eye
    voice word name number question answer problem reason idea dream plan game team friend family mother father sister
    brother child teacher doctor farmer soldier king queen law peace war history science art school college hospital
    office factory bank shop price money trade
"""

WORDS = tuple(_COMMON_WORDS.split())

_CLOSING = "Tell me a long story with all of these in it."
"""At the end, so that prompts differ from their first word: no cache has their beginning."""
_SAMPLE_WORDS = 400


class PromptWriter:
    """Writes texts whose prompt has a wanted number of tokens or a few fewer, never more."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        """`count_tokens` says how many tokens the chat prompt of one user message has, template included."""
        self._count_tokens = count_tokens
        self._overhead = count_tokens(_CLOSING)
        sample = _text([WORDS[number % len(WORDS)] for number in range(_SAMPLE_WORDS)])
        self._tokens_per_word = (count_tokens(sample) - self._overhead) / _SAMPLE_WORDS

    def write(self, random: Random, tokens: int) -> str:
        """A text that differs with the random source, of at most `tokens` tokens as a prompt; at least one word."""
        wanted = (tokens - self._overhead) / self._tokens_per_word
        words = [random.choice(WORDS) for _ in range(max(1, round(wanted * 1.1) + 2))]
        while (surplus := self._count_tokens(_text(words)) - tokens) > 0 and len(words) > 1:
            del words[max(1, len(words) - max(1, int(surplus / self._tokens_per_word))) :]
        return _text(words)


def _text(words: list[str]) -> str:
    return " ".join([*words, _CLOSING])
