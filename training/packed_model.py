"""The loss of a pack through a stock transformers model with a PEFT adapter. Knows no data and no training loop.

Nothing is computed that training does not need: no padding, no logits without a label, no gradient of a frozen weight.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import torch
from peft import PeftModel, PeftType
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention, _get_alibi_slopes

from training.lean_layers import lighten
from training.linear_loss import summed_cross_entropy
from training.packed_attention import GivenKV, pack_attention
from training.packing import Layout, PackedRow, make_pack

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "bloom")
"""Model types whose attention is softmax over scaled products, with ALiBi or without, and whose logits are the output
layer's: those that the tests hold against PEFT's own path."""


class PackedModel:
    """A PEFT model that is trained on packs. The base keeps its own attention for everything else."""

    def __init__(self, model: PeftModel) -> None:
        self._model = model
        base = model.get_base_model()
        assert isinstance(base, PreTrainedModel)
        self._base = base
        self._layers = _Layers()
        self._name = f"hotprompt_pack_{uuid4().hex}"
        AttentionInterface.register(self._name, self._layers.interface)
        AttentionMaskInterface.register(self._name, _no_mask)
        lighten(base)
        for module in base.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # what is frozen cannot overfit, and a prefix that rows share cannot be dropped in some
            elif isinstance(module, BloomAttention):
                setattr(module, "forward", partial(_bloom, module, module.forward, self._layers))  # noqa: B010

    def summed_loss(self, rows: Sequence[PackedRow]) -> torch.Tensor:
        """Sum of the cross entropy of all labelled positions of the rows, in nats. Rows without one are not allowed."""
        config = self._model.active_peft_config
        embed = self._base.get_input_embeddings()
        prompt, given = None, None
        if config.peft_type == PeftType.PREFIX_TUNING:
            given = self._given_kv()
        elif config.is_prompt_learning:
            prompt = self._model.get_prompt(batch_size=1)[0]
        pack = make_pack(
            rows,
            num_virtual_tokens=0 if prompt is None else len(prompt),
            first_position=0 if given is None else given[0].keys.shape[1],
            device=self._base.device,
        )
        embeddings = embed(pack.ids)  # [T, hidden_size]
        if prompt is not None:
            embeddings = torch.cat([prompt.to(embeddings.dtype), embeddings])
        hidden = self._hidden_states(embeddings, pack.positions, pack.layout, given)
        head = self._base.get_output_embeddings().weight
        return summed_cross_entropy(hidden.index_select(0, pack.predictors), head, pack.targets)

    def _hidden_states(
        self, embeddings: torch.Tensor, positions: torch.Tensor, layout: Layout, given: Sequence[GivenKV] | None
    ) -> torch.Tensor:
        """`[T, hidden_size]`, behind the last norm."""
        body = self._base.base_model
        own_positions = {} if self._base.config.model_type == "bloom" else {"position_ids": positions[None]}
        with self._attention(layout, given):
            output = body(inputs_embeds=embeddings[None], use_cache=False, **own_positions)
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    @contextmanager
    def _attention(self, layout: Layout, given: Sequence[GivenKV] | None) -> Iterator[None]:
        usual = self._base.config._attn_implementation
        self._base.config._attn_implementation = self._name
        try:
            with self._layers.attending(layout, given):
                yield
        finally:
            self._base.config._attn_implementation = usual

    def _given_kv(self) -> list[GivenKV]:
        """Keys and values of each layer from PEFT's prefix encoder: rows of `layers * 2 * heads * head_dim`."""
        config = self._model.active_peft_config
        encoder = self._model.prompt_encoder[self._model.active_adapter]
        tokens = self._model.prompt_tokens[self._model.active_adapter][: config.num_virtual_tokens]
        rows = encoder(tokens[None].to(self._base.device))[0]
        heads = config.num_attention_heads
        by_layer = rows.view(len(rows), config.num_layers, 2, heads, -1).permute(1, 2, 3, 0, 4)  # [layers, 2, H, n, D]
        return [GivenKV(keys, values) for keys, values in by_layer]


class _Layers:
    """What the attention layers of one model call while a pack is computed."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._given: Sequence[GivenKV] | None = None

    @contextmanager
    def attending(self, layout: Layout, given: Sequence[GivenKV] | None) -> Iterator[None]:
        self._layout, self._given = layout, given
        try:
            yield
        finally:
            self._layout, self._given = None, None

    @property
    def is_attending(self) -> bool:
        return self._layout is not None

    def interface(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,  # [1, H, T, D]
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """The signature that AttentionInterface asks for."""
        del attention_mask
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return self.attend(int(module.layer_idx), query[0], key[0], value[0], scale=scale)[None], None  # type: ignore[arg-type]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float,
        slopes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`[T, H, D]`; see `pack_attention`."""
        assert self._layout is not None
        given = None if self._given is None else self._given[layer]
        return pack_attention(query, key, value, layout=self._layout, scale=scale, given=given, slopes=slopes)


def can_pack(model: PeftModel) -> bool:
    """Whether a pack's loss is that of the model's rows one by one: known families, every layer over all tokens."""
    base: Any = model.get_base_model()
    config = base.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    head = base.get_output_embeddings()
    return (
        config.model_type in _FAMILIES
        and kinds == {"full_attention"}
        and not (config.model_type == "mistral" and config.sliding_window)
        and not getattr(config, "hidden_dropout", 0.0)  # BLOOM's, which is no module
        and type(head) is torch.nn.Linear
        and head.bias is None
        and not head.weight.requires_grad
    )


def _bloom(
    module: Any, usual: Any, layers: _Layers, hidden_states: torch.Tensor, residual: torch.Tensor, **others: Any
) -> Any:
    """BLOOM's attention, which asks no interface: its own projections around the pack's attention."""
    if not layers.is_attending:
        return usual(hidden_states, residual, **others)
    query, key, value = module._reshape(module.query_key_value(hidden_states))  # [1, H, T, D] each
    slopes = _get_alibi_slopes(module.num_heads, hidden_states.device)
    mixed = layers.attend(module.layer_idx, query[0], key[0], value[0], scale=module.inv_norm_factor, slopes=slopes)
    return module.dense(mixed.flatten(1)[None]) + residual, None


def _no_mask(**_: Any) -> None:
    return None
