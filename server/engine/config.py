"""The engine's limits. Knows no environment variables and no tensors."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Checked at birth; every problem is reported at once, by the setting's name."""

    max_model_len: int
    """Most tokens of one sequence: virtual tokens, prompt and answer."""
    max_num_seqs: int = 64
    """Most sequences that run in one batch."""
    max_num_batched_tokens: int = 512
    """Most tokens computed in one step; longer prompts are prefilled in chunks beside the running sequences."""
    max_num_waiting: int = 1024
    """Most sequences that wait for a place in the batch; beyond it, requests are refused."""
    block_size: int = 16
    """Tokens in one block of the KV cache; a device's own attention puts its page size in this place."""
    kv_cache_bytes: int | None = None
    """Memory of the KV cache; None is the device's default, when the weights are in memory."""
    is_int8: bool = False
    """Whether the weights are quantised to int8."""

    @property
    def max_num_requests(self) -> int:
        """Most requests at once, in the batch and waiting for it."""
        return self.max_num_seqs + self.max_num_waiting

    @property
    def num_blocks_of_longest(self) -> int:
        """Blocks that the longest sequence needs, and one to copy from."""
        return -(-self.max_model_len // self.block_size) + 1

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, not {value}"
            for name in (
                "max_model_len",
                "max_num_seqs",
                "max_num_batched_tokens",
                "max_num_waiting",
                "block_size",
                "kv_cache_bytes",
            )
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.max_num_batched_tokens < self.max_num_seqs:
            problems.append(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}): every running sequence computes a token in each step"
            )
        if problems:
            raise ValueError("; ".join(problems))
