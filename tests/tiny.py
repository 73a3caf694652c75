"""Tiny random base models and adapters, built in process: real transformers classes, a byte-level tokenizer."""

from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, PromptTuningConfig, TaskType, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from adapters.injections import SoftPrompt
from adapters.weights import Adapter

Family = Literal["llama", "qwen2", "gpt2", "bloom"]

HIDDEN_SIZE = 64
MAX_POSITIONS = 1024
EOS_ID = 256
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + '> ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant> ' }}{% endif %}"
)


def tiny_tokenizer(*, chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """One token for each byte (ids 0 to 255 in the alphabet's order), and `</s>` as id 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    fast.chat_template = chat_template
    return fast


def tiny_model(family: Family, *, seed: int = 0) -> PreTrainedModel:
    """A random model of about 200,000 parameters, in eval mode, whose greedy answers vary with the prompt."""
    torch.manual_seed(seed)
    common: dict[str, Any] = {"vocab_size": 257, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID}
    model: PreTrainedModel
    if family == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=HIDDEN_SIZE,
                intermediate_size=128,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=MAX_POSITIONS,
                initializer_range=0.15,
                **common,
            )
        )
    elif family == "qwen2":
        model = Qwen2ForCausalLM(
            Qwen2Config(
                hidden_size=HIDDEN_SIZE,
                intermediate_size=128,
                num_hidden_layers=3,
                num_attention_heads=8,
                num_key_value_heads=2,
                max_position_embeddings=MAX_POSITIONS,
                initializer_range=0.15,
                **common,
            )
        )
    elif family == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                n_embd=HIDDEN_SIZE, n_layer=3, n_head=4, n_positions=MAX_POSITIONS, initializer_range=0.2, **common
            )
        )
    else:
        model = BloomForCausalLM(
            BloomConfig(hidden_size=HIDDEN_SIZE, n_layer=3, n_head=4, initializer_range=0.15, **common)
        )
    model.train(mode=False)
    return model


def save_tiny_base(family: Family, path: Path, *, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Write a tiny base model with its tokenizer to `path`, as `--base` takes it."""
    tiny_model(family, seed=seed).save_pretrained(path)
    tiny_tokenizer(chat_template=chat_template).save_pretrained(path)
    return path


def save_tiny_adapter(base: PreTrainedModel, path: Path, *, num_virtual_tokens: int, seed: int) -> Path:
    """Write a random soft prompt for `base`, made and saved by PEFT itself. `base` is left as it was."""
    torch.manual_seed(seed)
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=num_virtual_tokens)
    peft_model = get_peft_model(base, config)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    peft_model.save_pretrained(str(path))
    return path


def load_peft(base: PreTrainedModel, path: Path) -> PeftModel:
    """The adapter in `path` on `base`, by PEFT: the oracle of the equivalence tests."""
    model = PeftModel.from_pretrained(base, str(path))
    model.train(mode=False)
    return model


def rows_of(adapter: Adapter) -> torch.Tensor:
    """The rows of an adapter that is a soft prompt."""
    assert isinstance(adapter.injection, SoftPrompt)
    return adapter.injection.embeddings
