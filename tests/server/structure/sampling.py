"""Answers drawn at random under a constraint, as an engine would, and what is needed to make them."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from server.engine.constraint import TokenConstraint
from server.text.structure.compiler import GrammarCompiler
from tests.tiny import EOS_ID, tiny_tokenizer

TINY_VOCAB_SIZE = 300
"""More than the tiny tokenizer's 257, as models have it."""


def tiny_compiler() -> GrammarCompiler:
    """For a model whose tokens are bytes."""
    return GrammarCompiler(tiny_tokenizer(), TINY_VOCAB_SIZE, stop_token_ids=[EOS_ID])


@dataclass(frozen=True, slots=True)
class Drawn:
    """A random answer; `is_complete` if a stop token ended it, and not its length."""

    text: str
    num_tokens: int
    is_complete: bool


def allowed_ids(constraint: TokenConstraint, vocab_size: int) -> list[int]:
    """The tokens that may come next."""
    mask = np.zeros(-(-vocab_size // 32), np.int32)
    constraint.fill(mask)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


class RandomModel:
    """Draws tokens evenly, but prefers half of the time those that end things, so that answers end."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab_size: int, stop_token_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._stop = frozenset(stop_token_ids)
        self._ending = self._stop | {i for token, i in tokenizer.get_vocab().items() if token[0] in '"}],@'}

    def answer(self, constraint: TokenConstraint, *, seed: int, max_tokens: int = 1500) -> Drawn:
        rng = random.Random(seed)
        made: list[int] = []
        while len(made) < max_tokens:
            allowed = allowed_ids(constraint, self._vocab_size)
            ending = [token_id for token_id in allowed if token_id in self._ending]
            token_id = rng.choice(ending if ending and rng.random() < 0.5 else allowed)
            constraint.accept(token_id)
            if token_id in self._stop:
                return Drawn(str(self._tokenizer.decode(made)), len(made), is_complete=True)
            made.append(token_id)
        return Drawn(str(self._tokenizer.decode(made)), len(made), is_complete=False)


def tiny_id(character: str) -> int:
    """The tiny tokenizer's token of one character of ASCII."""
    [token_id] = tiny_tokenizer()(character, add_special_tokens=False)["input_ids"]
    return int(token_id)


def tiny_random_model() -> RandomModel:
    return RandomModel(tiny_tokenizer(), TINY_VOCAB_SIZE, [EOS_ID])


def follow(constraint: TokenConstraint, text: str, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> bool:
    """Whether a constraint allows this text, token by token, and then an end."""
    for token_id in tokenizer(text, add_special_tokens=False)["input_ids"]:
        if token_id not in allowed_ids(constraint, vocab_size):
            return False
        constraint.accept(token_id)
    return tokenizer.eos_token_id in allowed_ids(constraint, vocab_size)
