"""How many prompt tokens a step may compute beside decoding sequences. Knows no sequences, no tensors and no clock.

A prompt in one piece would hold up every running stream for as long as it takes. So it goes in chunks, of a size at
which one prompt at most doubles a step that only decodes. Where more of them wait, they get more: else streams would
run on undisturbed while few of the requests run at all. What a chunk costs differs by model, machine and context: the
size follows the measured times.
"""

NO_STALL_SECONDS = 0.02
"""A step as short as this stalls nobody, whatever a decoding step takes."""
FIRST_TOKENS = 64
LEAST_TOKENS = 16
"""A prompt of thousands of tokens must come to its end, even if it takes a little more time than it should."""
MEASURE_EVERY = 32
"""After so many steps with prompts, one goes without: what decoding alone takes changes with the sequences."""
LARGEST_SHARE = 4.0
"""Most time for prompts in a step, in times of what decoding alone takes, however many of them wait."""


def share_of(num_prompts: int) -> float:
    """The time that so many prompts may take of a step, in times of what decoding alone takes."""
    return min((1 + num_prompts) / 2, LARGEST_SHARE)


class PrefillPacer:
    """Fed with the duration of every step, it says how many prompt tokens the next one may hold."""

    def __init__(self) -> None:
        self._tokens = float(FIRST_TOKENS)
        self._decode_seconds: float | None = None
        self._steps_since_measured = 0

    def num_tokens(self, num_prompts: int) -> int:
        """Most tokens of all these prompts beside decoding sequences; 0 when a step without any is due."""
        return 0 if self._steps_since_measured >= MEASURE_EVERY else int(self._tokens * share_of(num_prompts))

    def observe(self, seconds: float, *, num_decodes: int, num_prompts: int, num_prompt_tokens: int) -> None:
        """Learn from a step that computed `num_decodes` decoding sequences and so many tokens of prompts.

        `num_prompts` is what `num_tokens` was asked with.
        """
        if num_decodes == 0:
            return
        if num_prompt_tokens == 0:
            self._observe_decoding(seconds)
            return
        self._steps_since_measured += 1
        if self._decode_seconds is not None:
            self._adapt(seconds, self._decode_seconds, share_of(num_prompts), num_prompt_tokens)

    def _observe_decoding(self, seconds: float) -> None:
        self._steps_since_measured = 0
        known = self._decode_seconds
        # One step that the machine held up must not pass for the rule.
        self._decode_seconds = seconds if known is None else known + 0.2 * (min(seconds, 2 * known) - known)

    def _adapt(self, seconds: float, decode_seconds: float, share: float, num_prompt_tokens: int) -> None:
        allowed = max(share * decode_seconds, NO_STALL_SECONDS - decode_seconds)
        factor = allowed / max(seconds - decode_seconds, 1e-9)
        if factor > 1 and num_prompt_tokens < int(self._tokens * share):  # a smaller piece than allowed proves nothing
            return
        self._tokens = max(self._tokens * min(max(factor, 0.5), 1.25), float(LEAST_TOKENS))
