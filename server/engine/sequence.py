"""One request on its way through the engine, and every length derived from it. Knows no tensors and no cache."""

import hashlib
from array import array
from dataclasses import dataclass, field
from enum import Enum

from server.engine.outputs import Admission, FinishReason
from server.engine.sampling_params import SamplingParams
from server.engine.token_table import TokenTable


class SequenceStatus(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """Token ids with what is known of their KV.

    `token_ids` is `[-1, …, -n]` for the n virtual tokens, then the prompt, then the answer so far. Half-open intervals
    of positions: `[0, num_virtual_tokens)` is virtual, up to `num_prompt_tokens` given, up to `num_tokens` made; and
    `[0, num_computed_tokens)` has its KV in the blocks of `block_table`.
    """

    request_id: int
    token_ids: list[int]
    num_virtual_tokens: int
    num_prompt_tokens: int
    cache_seed: bytes
    tenant_salt: bytes
    """Enters the hash chain before the first real token: virtual tokens are shared by all tenants, prompts are not."""
    params: SamplingParams | None
    """None for a sequence that only leaves its KV in the prefix cache."""
    is_pinned: bool = False
    """Whether that KV, of virtual tokens alone, stays there until it is unpinned."""
    is_pooled: bool = False
    """Whether it is there for the mean of its real tokens' last hidden states. It makes no tokens."""
    status: SequenceStatus = SequenceStatus.WAITING
    finish_reason: FinishReason | None = None
    num_computed_tokens: int = 0
    num_scored_tokens: int = 0
    """Up to here, virtual tokens among them, no log-probability of a next prompt token is wanted, or any more."""
    num_preemptions: int = 0
    adapter_digest: str | None = None
    admission: Admission | None = None
    """Its first one."""
    block_table: list[int] = field(default_factory=list)
    block_keys: list[bytes] = field(default_factory=list)
    """Keys of the full blocks from the start, as far as they were asked for; see `block_key`."""
    token_table: TokenTable | None = None
    """What bias and penalties change in the next token's logits; it stays through preemption, like the tokens."""

    @classmethod
    def create(
        cls,
        request_id: int,
        prompt_ids: "list[int] | tuple[int, ...]",
        params: SamplingParams | None,
        *,
        cache_seed: bytes,
        tenant_salt: bytes = b"",
        num_virtual_tokens: int = 0,
        is_pinned: bool = False,
        is_pooled: bool = False,
        adapter_digest: str | None = None,
    ) -> "Sequence":
        """A waiting sequence. `cache_seed` names the model and the adapter that its KV belongs to.

        Sequences of different `tenant_salt` share the KV of virtual tokens only.
        """
        token_ids = [-i for i in range(1, num_virtual_tokens + 1)] + list(prompt_ids)
        return cls(
            request_id,
            token_ids,
            num_virtual_tokens,
            len(token_ids),
            cache_seed,
            tenant_salt,
            params,
            is_pinned=is_pinned,
            is_pooled=is_pooled,
            adapter_digest=adapter_digest,
            num_scored_tokens=num_virtual_tokens,
            token_table=TokenTable.of(params, prompt_ids) if params else None,
        )

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_cached_tokens(self) -> int:
        """Real prompt tokens whose KV was found in the cache when the sequence was first admitted."""
        return 0 if self.admission is None else self.admission.num_cached_tokens

    @property
    def num_output_tokens(self) -> int:
        return self.num_tokens - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return self.num_tokens - self.num_computed_tokens

    @property
    def makes_tokens(self) -> bool:
        return self.params is not None and self.params.max_tokens > 0

    @property
    def is_scoring(self) -> bool:
        """Whether log-probabilities of its prompt are still to be computed."""
        is_asked = self.params is not None and self.params.num_prompt_logprobs is not None
        return is_asked and self.num_scored_tokens < self.num_prompt_tokens - 1

    @property
    def num_shared_tokens(self) -> int:
        """How many, from the start, may leave their KV to others.

        Of a pooled sequence the virtual ones alone: what it is made of seldom comes again.
        """
        return self.num_virtual_tokens if self.is_pooled else self.num_tokens

    @property
    def num_borrowing_tokens(self) -> int:
        """How many, from the start, may use the KV of others: those of which nothing but their KV is wanted.

        Of a pooled sequence each real token's hidden state is wanted, of one that is scoring each one's logits.
        """
        return self.num_scored_tokens if self.is_scoring else self.num_shared_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether all but the newest token have their KV."""
        return self.num_uncomputed_tokens == 1 and self.num_output_tokens > 0

    def note_computed(self, num_tokens: int) -> None:
        """Enter that the first so many tokens have their KV, and that their logits were read where they were wanted."""
        self.num_computed_tokens = num_tokens
        self.num_scored_tokens = max(self.num_scored_tokens, min(num_tokens, self.num_prompt_tokens - 1))

    def append(self, token_id: int) -> None:
        self.token_ids.append(token_id)
        if self.token_table is not None:
            self.token_table.add(token_id)

    def block_key(self, index: int, block_size: int) -> bytes:
        """The prefix-cache key of full block `index`: a hash chain over the seed and all tokens up to its end."""
        while len(self.block_keys) <= index:
            start = len(self.block_keys) * block_size
            parent = self.block_keys[-1] if self.block_keys else self.cache_seed
            if len(self.block_keys) == self.num_virtual_tokens // block_size:  # the first block with a real token
                parent = salted_key(parent, self.tenant_salt)
            self.block_keys.append(chain_key(parent, self.token_ids[start : start + block_size]))
        return self.block_keys[index]

    def virtual_tail_key(self, block_size: int) -> bytes | None:
        """The key of the virtual tokens in the block that they only begin, or None when they end at a block's edge."""
        full, tail = divmod(self.num_virtual_tokens, block_size)
        if tail == 0:
            return None
        parent = self.block_key(full - 1, block_size) if full else self.cache_seed
        return chain_key(parent, self.token_ids[full * block_size : self.num_virtual_tokens])


def chain_key(parent: bytes, token_ids: list[int]) -> bytes:
    """16 bytes that stand for `token_ids` after everything that `parent` stands for."""
    return hashlib.blake2b(parent + array("q", token_ids).tobytes(), digest_size=16).digest()


def salted_key(parent: bytes, tenant_salt: bytes) -> bytes:
    """16 bytes that stand for everything that `parent` stands for, and for one tenant."""
    return hashlib.blake2b(parent + tenant_salt, digest_size=16, person=b"tenant").digest()


def cache_seed(model_fingerprint: str, adapter_digest: str | None) -> bytes:
    """The start of the hash chain: KV is shared only under the same model and the same adapter content."""
    tagged = f"model:{model_fingerprint}\nadapter:{adapter_digest or ''}\n"
    return hashlib.blake2b(tagged.encode(), digest_size=16).digest()
