"""The loss of a pack through a stock transformers model with a PEFT adapter. Knows no data and no training loop.

Nothing is computed that training does not need: no padding, no logits without a label, no gradient of a frozen weight.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from uuid import uuid4

import torch
from peft import PeftModel, PeftType
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention, _get_alibi_slopes

from training.lean_layers import lighten
from training.linear_loss import summed_cross_entropy
from training.packed_attention import GivenKV, attend_together
from training.packing import Layout, PackedRow, make_pack
from training.recomputing import recomputed

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "bloom")
"""Model types whose attention is softmax over scaled products, with ALiBi or without, and whose logits are the output
layer's: those that the tests hold against PEFT's own path."""


class PackedModel:
    """A PEFT model that is trained on packs. The base keeps its own attention for everything else.

    With `checkpointing`, its layers keep their input alone in training, and are computed again in the backward pass.
    """

    def __init__(self, model: PeftModel, *, checkpointing: bool = False) -> None:
        self._model = model
        self._checkpointing = checkpointing
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
        return self.summed_losses([self._model], rows)[0]

    def summed_losses(self, models: Sequence[PeftModel], rows: Sequence[PackedRow]) -> torch.Tensor:
        """The same of several adapters on this base, `[models]`, in one pass: each has its own copy of the rows.

        More than one of them must be virtual tokens of one kind and number.
        """
        config = models[0].active_peft_config
        embed = self._base.get_input_embeddings()
        prompts, given = None, None
        if config.peft_type == PeftType.PREFIX_TUNING:
            given = self._given_kv(models)
        elif config.is_prompt_learning:
            prompts = torch.stack([model.get_prompt(batch_size=1)[0] for model in models])  # [models, n, hidden_size]
        pack = make_pack(
            rows,
            num_virtual_tokens=0 if prompts is None else prompts.shape[1],
            first_position=0 if given is None else given[0].keys.shape[1],
            device=self._base.device,
        )
        embeddings = embed(pack.ids).expand(len(models), -1, -1)  # [models, T, hidden_size]
        if prompts is not None:
            embeddings = torch.cat([prompts.to(embeddings.dtype), embeddings], dim=1)
        hidden = self._hidden_states(embeddings, pack.positions, pack.layout, given)
        head = self._base.get_output_embeddings().weight
        predicting = hidden.index_select(1, pack.predictors)
        return torch.stack([summed_cross_entropy(each, head, pack.targets) for each in predicting])

    def _hidden_states(
        self, embeddings: torch.Tensor, positions: torch.Tensor, layout: Layout, given: Sequence[GivenKV] | None
    ) -> torch.Tensor:
        """`[models, T, hidden_size]` of embeddings of that shape, behind the last norm."""
        body = self._base.base_model
        own_positions = {} if self._base.config.model_type == "bloom" else {"position_ids": positions[None]}
        attention = partial(self._attention, layout, given)
        with attention(), recomputed(self._base, attention) if self._checkpointing else nullcontext():
            output = body(inputs_embeds=embeddings, use_cache=False, **own_positions)
        hidden: torch.Tensor = output.last_hidden_state
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

    def _given_kv(self, models: Sequence[PeftModel]) -> list[GivenKV]:
        """Keys and values of each layer, those of each head for all models, as `attend_together` folds them."""
        each = [_of_prefix(model, self._base.device) for model in models]
        by_layer = torch.stack(each, dim=3).flatten(2, 3)  # [layers, 2, Hkv * models, n, D]
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
        query: torch.Tensor,  # [models, H, T, D]
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
        return self.attend(int(module.layer_idx), query, key, value, scale=scale), None  # type: ignore[arg-type]

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
        """`[models, T, H, D]`; see `pack_attention`."""
        assert self._layout is not None
        given = None if self._given is None else self._given[layer]
        return attend_together(query, key, value, layout=self._layout, scale=scale, given=given, slopes=slopes)


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


def _of_prefix(model: PeftModel, device: torch.device) -> torch.Tensor:
    """`[layers, 2, Hkv, n, D]` from PEFT's prefix encoder: rows of `layers * 2 * heads * head_dim`."""
    config = model.active_peft_config
    encoder = model.prompt_encoder[model.active_adapter]
    tokens = model.prompt_tokens[model.active_adapter][: config.num_virtual_tokens]
    rows: torch.Tensor = encoder(tokens[None].to(device))[0]
    return rows.view(len(rows), config.num_layers, 2, config.num_attention_heads, -1).permute(1, 2, 3, 0, 4)


def _bloom(
    module: Any, usual: Any, layers: _Layers, hidden_states: torch.Tensor, residual: torch.Tensor, **others: Any
) -> Any:
    """BLOOM's attention, which asks no interface: its own projections around the pack's attention."""
    if not layers.is_attending:
        return usual(hidden_states, residual, **others)
    query, key, value = module._reshape(module.query_key_value(hidden_states))  # [models, H, T, D] each
    slopes = _get_alibi_slopes(module.num_heads, hidden_states.device)
    mixed = layers.attend(module.layer_idx, query, key, value, scale=module.inv_norm_factor, slopes=slopes)
    return module.dense(mixed.flatten(2)) + residual, None


def _no_mask(**_: Any) -> None:
    return None
